"""Linear classifiers on cached features, a sweep over learning rate and weight decay.

Command:  python evaluate.py --task=linear_cached --checkpoint=runs/v2 --workdir=runs/v2_cached
Cost:     one pass of the encoder over all images, kept for other tasks; then minutes
Expected: near the accuracy of linear.py, which sees random crops
Source:   the protocol of main_lincls.py, on centre crops
"""

from moco_tf.evaluation.config import LinearCached


def get_config():
    """The images of the run itself."""
    return LinearCached()
