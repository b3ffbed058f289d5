"""The programs that a TPU runs, on small networks: steps and predictions of every task.

`tpu_lower.py` lowers them to StableHLO and `tpu_compile.py` compiles them for a TPU.
"""

import functools

import keras
import parts
import tensorflow as tf

from moco_tf import SGD, Encoder, MoCo, heads, resnet
from moco_tf.data.recipes import moco
from moco_tf.detection.model.detector import Detector, RCNNSettings
from moco_tf.detection.model.network import make_network
from moco_tf.evaluation.classifier import Classifier
from moco_tf.mechanisms import EndToEnd, MemoryBank
from moco_tf.segmentation.networks import fcn
from moco_tf.segmentation.segmenter import Segmenter, make_predict

ROWS, SIZE_PX = 8, 32  # of a batch of small images
CLASSES = 5
DETECTOR_ROWS, DETECTOR_PX, OBJECTS, JOINTS, MASK_PX = 2, 128, 4, 17, 112
SETTINGS = RCNNSettings((200, 200), (100, 50), regions=32, detections=10)


def programs():
    """Functions by name, each of which gives a graph function and the specs of its arguments."""
    return {
        "pretrain_step": functools.partial(whole_step, parts.WORKLOADS["tiny"], batch=8),
        "fit_step": functools.partial(_contrastive, MoCo, queue_size=64),
        "symmetric_accumulated_step": functools.partial(
            _contrastive, MoCo, queue_size=64, symmetric=True, gradient_accumulation=2
        ),
        "end_to_end_step": functools.partial(_contrastive, EndToEnd),
        "memory_bank_step": _memory_bank,
        "linear_step": functools.partial(_classifier, frozen=True),
        "finetune_step": functools.partial(_classifier, frozen=False),
        "fcn_step": _fcn_step,
        "fcn_predict": _fcn_predict,
        "mask_rcnn_step": functools.partial(_rcnn_step, masks=True),
        "mask_rcnn_predict": functools.partial(_rcnn_predict, masks=True),
        "keypoint_rcnn_step": functools.partial(_rcnn_step, num_keypoints=JOINTS),
        "keypoint_rcnn_predict": functools.partial(_rcnn_predict, num_keypoints=JOINTS),
        "resnet50_step": functools.partial(whole_step, parts.WORKLOADS["resnet50"], batch=32),
    }


def whole_step(workload, batch):
    """The pre-training step of a replica as train.py runs it, from uint8 views, in bfloat16."""
    model, _ = parts.make_model(workload, batch, bfloat16=True)
    recipe, size = moco.v2, workload["image_size"]

    def step(images_q, images_k, draws_q, draws_k, row, order):
        x_q = recipe.photometric(images_q, draws_q)
        x_k = recipe.photometric(images_k, draws_k)
        return model.step({"x_q": x_q, "x_k": x_k, "row": row, "order": order})

    images = tf.TensorSpec([batch, size, size, 3], tf.uint8)
    draws = tf.TensorSpec([batch, recipe.num_draws])
    rows = tf.TensorSpec([batch], tf.int32)
    return step, (images, images, draws, draws, rows, rows)


def _views(rows=ROWS):
    return tf.TensorSpec([rows, SIZE_PX, SIZE_PX, 3])


def _backbone(**options):
    """A narrow ResNet of one block a stage: half the ops of a ResNet-18, and all kinds of them."""
    keras.mixed_precision.set_global_policy("float32")
    return resnet.ResNet("basic", (1, 1, 1, 1), width=8, **options)


def _compiled(model, variables):
    model.compile(SGD(0.03, weight_decay=1e-4))
    model.optimizer.build(variables)
    return model


def _contrastive(kind, **options):
    """A step of `model.fit`, which shuffles by itself and counts its metrics."""
    encoder = Encoder(_backbone(stem="cifar", bn_group_size=2), heads.mlp(16))
    model = kind(encoder, **options)
    _compiled(model, model.trainable_variables)
    return lambda x_q, x_k: model.train_step((x_q, x_k)), (_views(), _views())


def _memory_bank():
    encoder = Encoder(_backbone(stem="cifar"), heads.linear(16))
    model = MemoryBank(encoder, num_images=100, queue_size=64)
    _compiled(model, model.trainable_variables)
    index = tf.TensorSpec([ROWS], tf.int64)
    return lambda x_q, index: model.step({"x_q": x_q, "index": index}), (_views(), index)


def _classifier(frozen):
    model = Classifier(_backbone(stem="cifar"), CLASSES, frozen)
    _compiled(model, model.trainable_variables)
    label = tf.TensorSpec([ROWS], tf.int64)
    return lambda x, label: model.step({"x": x, "label": label}), (_views(), label)


def _normalized(x):
    return tf.cast(x, tf.float32) / 64 - 2


def _segmenter():
    backbone = _backbone(last_dilation=2, synchronized_bn=True)
    model = Segmenter(fcn(backbone, CLASSES), _normalized)
    return _compiled(model, model.trainable_variables)


def _fcn_step():
    model = _segmenter()
    images = tf.TensorSpec([2, 65, 65, 3], tf.uint8)
    label = tf.TensorSpec([2, 65, 65], tf.int32)
    return lambda x, label: model.step({"x": x, "label": label}), (images, label)


def _fcn_predict():
    predict = make_predict(_segmenter().network, _normalized, (0.75,), flip=False, multiple=1)
    return predict, (tf.TensorSpec([2, 72, 96, 3], tf.uint8),)


def _detector(**options):
    encoder = Encoder(_backbone())
    network = make_network(encoder, "fpn", CLASSES, width_divisor=8, **options)
    model = Detector(network, _normalized, SETTINGS, static_shapes=True)
    return _compiled(model, model.trainable_variables)


def _rcnn_step(**options):
    model = _detector(**options)
    n, g = DETECTOR_ROWS, OBJECTS
    specs = {
        "x": tf.TensorSpec([n, DETECTOR_PX, DETECTOR_PX, 3], tf.uint8),
        "size": tf.TensorSpec([n, 2], tf.int32),
        "boxes": tf.TensorSpec([n, g, 4]),
        "label": tf.TensorSpec([n, g], tf.int32),
        "step": tf.TensorSpec([n], tf.int64),
    }
    if model.network.mask:
        specs["mask"] = tf.TensorSpec([n, g, MASK_PX, MASK_PX], tf.uint8)
    if model.network.keypoint:
        specs["keypoints"] = tf.TensorSpec([n, g, JOINTS, 3])
    names = list(specs)
    return lambda *args: model.step(dict(zip(names, args))), tuple(specs.values())


def _rcnn_predict(**options):
    model = _detector(**options)
    images = tf.TensorSpec([DETECTOR_ROWS, DETECTOR_PX, DETECTOR_PX, 3], tf.uint8)
    return model.predict, (images, tf.TensorSpec([DETECTOR_ROWS, 2], tf.int32))
