"""Semantic segmentation on pre-trained backbones. Source: MoCo v1, section 4.2 and appendix."""
