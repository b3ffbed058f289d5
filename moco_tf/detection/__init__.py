"""Detection, instance masks, keypoints and DensePose on a pre-trained backbone."""
