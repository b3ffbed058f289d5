"""The encoder in other tasks: semantic segmentation."""
