"""Detection, instance segmentation and keypoints on a pre-trained backbone, in two stages."""
