"""Detection and instance segmentation on COCO: Mask R-CNN, R50-C4, 1x schedule.

Command:  python evaluate.py --task=detection --checkpoint=runs/v2 \
              --config=configs/transfer/coco_mask_rcnn_c4_1x.py --workdir=runs/v2_coco_c4_1x
          (controls: from scratch, --config.random_init=true; of supervised weights,
          --checkpoint=FILE --config.frozen_bn=true)
Data:     a folder coco/ with train2017/, val2017/ and annotations/
Cost:     90,000 steps of 16 images of 800 px; not run here
Expected: box AP 38.5 %, mask AP 33.6 % (published, MoCo v1 on ImageNet; supervised
          38.2 and 33.3)
Source:   MoCo v1, section 4.2 and appendix; detectron2's configs of the same name
"""

from moco_tf.detection.config import Data, Detection


def get_config():
    """lr .02 for 16 images, x.1 after 60,000 and 80,000 steps."""
    return Detection(
        data=Data(
            train="coco:coco/train2017,coco/annotations/instances_train2017.json",
            test="coco:coco/val2017,coco/annotations/instances_val2017.json",
        ),
        architecture="c4",
        masks=True,
    )
