"""Backbones (images to features), their batch normalisation and projection heads."""
