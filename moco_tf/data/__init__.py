"""From sources of images to batches: sources, recipes, image ops, input pipelines."""
