"""Average precision by the rules of COCO, LVIS, VOC, Cityscapes and DensePose."""
