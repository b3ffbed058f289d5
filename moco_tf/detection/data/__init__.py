"""Annotated images: readers of their formats, and batches of them."""
