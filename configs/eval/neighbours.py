"""Nearest neighbours of photos without labels as a page; alignment and uniformity.

Command:  python evaluate.py --task=neighbours --checkpoint=runs/v2 --workdir=runs/v2_neighbours
          (other photos: --config.data.source=folder:photos; the baseline: with
          --config.random_init=true and another --workdir)
Cost:     one pass of the backbone over 4,096 images, two of the encoder over 1,024
Expected: neighbours that look alike; both numbers lower than the baseline's uniformity and, after
          long training, alignment
Source:   arXiv:2005.10242, section 4
"""

from moco_tf.evaluation.config import Neighbours


def get_config():
    """The images of the run itself."""
    return Neighbours()
