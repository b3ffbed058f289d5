"""What all forked commands start with: slow imports, and generated images, made once.

TensorFlow has not run anything yet when a command is forked off: its threads would not survive.
The commands themselves are left out, for each defines its flags.
"""

import functools

import moco_tf  # isort: skip  # before anything imports TensorFlow
import keras_cv  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import sklearn.manifold  # noqa: F401
import tensorflow_datasets  # noqa: F401

import moco_tf.detection.task
import moco_tf.encoders
import moco_tf.evaluation.task
import moco_tf.pretraining.run
import moco_tf.segmentation.task  # noqa: F401
from moco_tf.data.sources import synthetic

for name, (draw, classes) in synthetic.CONTENTS.items():
    synthetic.CONTENTS[name] = (functools.cache(draw), classes)
    for images, seed in synthetic.SPLITS.values():
        synthetic.CONTENTS[name][0](images, seed)
