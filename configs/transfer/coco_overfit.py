"""Overfits a few images of COCO on a CPU, a check of the whole: Mask R-CNN or Keypoint R-CNN, FPN.

Command:  python tools/coco_subset.py coco/annotations/instances_train2017.json 20.json --images=20
          python evaluate.py --task=detection --checkpoint=runs/tiny \
              --config=configs/transfer/coco_overfit.py --workdir=runs/tiny_overfit \
              --config.data.train=coco:coco/train2017,20.json \
              --config.data.test=coco:coco/train2017,20.json
          (keypoints: --config=configs/transfer/coco_overfit.py:keypoints, and images and a file
          of person keypoints)
Data:     any in COCO's format; the images that it is trained on are the test's
Cost:     on two CPU cores beside other work, with a ResNet-18 of width 16: 1,600 steps of masks
          46 minutes, 500 steps of keypoints 34 minutes
Expected: masks of 20 images: box AP50 91.2, AP 77.0, mask AP50 82.5, AP 60.0 %. Keypoints of 4
          images: OKS AP50 100, AP 97.7, box AP50 100 %
Source:   the recipes of coco_mask_rcnn_fpn.py and coco_keypoint_rcnn_fpn_2x.py, smaller
"""

from moco_tf.detection.config import Data, Detection
from moco_tf.training.config import Optimizer


def get_config(heads="masks"):
    """Heads of a quarter of their width, small images; lr x.1 after 80 % of the steps."""
    masks = {"masks": True, "keypoints": False}[heads]
    side_px = 384 if masks else 256
    return Detection(
        data=Data(
            train="coco:coco/train2017,20.json",
            test="coco:coco/train2017,20.json",
            short_px=(side_px,),
            test_short_px=side_px,
        ),
        optimizer=Optimizer(
            learning_rate=0.02 if masks else 0.005,
            reference_batch=4,
            schedule="step",
            milestones_steps=(1300 if masks else 400,),
            warmup_steps=100,
        ),
        masks=masks,
        keypoints=not masks,
        width_divisor=4,
        before_nms=(1000, 500),
        after_nms=(500, 200),
        regions=128 if masks else 64,
        sampling_ratio=2,
        batch_size=4,
        steps=1600 if masks else 500,
        bn_statistics_batches=20,
        test_every_steps=400 if masks else 250,
        test_batch_size=4,
        checkpoint_every_steps=200,
    )
