"""DensePose on COCO, where every pixel of a person is on its surface: R50-FPN, s1x schedule.

Command:  python evaluate.py --task=detection --checkpoint=runs/v2 \
              --config=configs/transfer/coco_densepose_rcnn_fpn_s1x.py --workdir=runs/v2_densepose \
              --config.densepose_files=densepose
          (controls: from scratch, --config.random_init=true; of supervised weights,
          --checkpoint=FILE)
Data:     a folder coco/ with train2017/, val2017/ (2014's images under other names) and
          annotations/, for which DensePose-COCO's files are joined and their images renamed:
              jq -s '{categories: .[0].categories, annotations: map(.annotations[]),
                  images: map(.images[] | .file_name |= sub("COCO_.*_"; ""))}' \
                  densepose_coco_2014_train.json densepose_coco_2014_valminusminival.json \
                  > coco/annotations/densepose_train2017.json
          and likewise densepose_coco_2014_minival.json to densepose_val2017.json.
          For flips and the score (GPS) also a folder densepose/ with four files that have a
          licence: without --config.densepose_files the log says how to get them.
Cost:     130,000 steps of 16 images of 800 px; not run here
Expected: DensePose AP75 53.9 % (published, MoCo v1 on ImageNet; supervised 50.6)
Source:   MoCo v1, section 4.2 and appendix; densepose_rcnn_R_50_FPN_s1x_legacy.yaml of detectron2's
          projects/DensePose
"""

from moco_tf.detection.config import Data, Detection
from moco_tf.training.config import Optimizer


def get_config():
    """A tenth of the other configs' lr, warmed up from a tenth, x.1 after 100,000 and 120,000
    steps; RoIAlign without alignment."""
    return Detection(
        data=Data(
            train="coco:coco/train2017,coco/annotations/densepose_train2017.json",
            test="coco:coco/val2017,coco/annotations/densepose_val2017.json",
        ),
        optimizer=Optimizer(
            learning_rate=0.002,
            reference_batch=16,
            schedule="step",
            milestones_steps=(100_000, 120_000),
            warmup_steps=1000,
            warmup_factor=0.1,
        ),
        densepose=True,
        sampling_ratio=2,
        roi_aligned=False,
        steps=130_000,
    )
