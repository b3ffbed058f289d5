"""kNN on frozen features, for k of 10, 20, 100 and 200 in one pass.

Command:  python evaluate.py --task=knn --checkpoint=runs/v2 --workdir=runs/v2_knn
          (as the CIFAR-10 demo and the monitor of train.py vote: --config.temperature=0.1)
Cost:     one pass of the encoder over all images, kept for other tasks
Expected: ImageNet, v2 at 200 epochs, backbone features: 55.6 / 55.7 / 53.7 / 52.5 % for
          k = 10 / 20 / 100 / 200 (published by mmselfsup)
Source:   mmselfsup, tools/benchmarks/classification/knn_imagenet/test_knn.py; arXiv:1805.01978
"""

from moco_tf.evaluation.config import Knn


def get_config():
    """The images of the run itself, votes at temperature .07."""
    return Knn(temperature=0.07)
