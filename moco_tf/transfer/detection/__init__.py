"""Two-stage object detection, instance segmentation and keypoints on a pre-trained backbone."""
