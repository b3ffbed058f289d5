"""Backbones (images to features), their batch normalization and projection heads."""
