"""Average precision, as COCO, VOC, Cityscapes and DensePose have it."""
