"""Semantic segmentation on PASCAL VOC 2012 with SBD, the paper's FCN.

Command:  python evaluate.py --task=segmentation --config=configs/transfer/voc_fcn.py \
              --checkpoint=runs/v2 --workdir=runs/v2_voc
          (from scratch, the control: --config.random_init=true)
Data:     VOCdevkit/VOC2012, and in it SBD's maps as SegmentationClassAug/ and the list
          ImageSets/Segmentation/train_aug.txt
Cost:     30,000 steps of 16 crops of 513 px; not run here
Expected: mIoU 72.5 % (published, MoCo v1 on ImageNet; supervised 74.4 %)
Source:   MoCo v1, section 4.2 and appendix
"""

from moco_tf.segmentation.config import Data, Segmentation


def get_config():
    """lr .003, x.1 after 70 and 90 % of the steps."""
    return Segmentation(
        data=Data(
            train="voc:VOCdevkit/VOC2012:train_aug", test="voc:VOCdevkit/VOC2012:val", crop_px=513
        )
    )
