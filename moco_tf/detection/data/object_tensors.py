"""The annotated objects of an image as tensors: scaled, mirrored, and filled up to a static shape.

Graph functions of the input pipeline.
"""

import numpy as np
import tensorflow as tf

from moco_tf.detection.data import densepose, masks
from moco_tf.detection.data.annotations import Annotations
from moco_tf.detection.data.objects import CROWD, EMPTY


class ObjectTensors:
    """Looks up the objects of an image, at most `max_objects` of them.

    All methods take and return a dict of the n objects of one image:
        boxes: float32 nx4, px; label: int32 n, class, or `CROWD`.
        mask: uint8 n x 112 x 112, within the box, if there are masks.
        keypoints: float32 nxJx3, if there are keypoints.
        densepose_points, densepose_masks: see `densepose.unpacked`, if there are such annotations.

    Args:
        annotations: `Annotations`, opened for training.
        max_objects: G, objects of an image at most; if it has more, a random subset is taken.
        symmetry: see `densepose.mirrored`; without it, persons with DensePose are not mirrored.
    """

    def __init__(
        self, annotations: Annotations, max_objects: int, symmetry: np.ndarray | None = None
    ):
        self.max_objects = max_objects
        self.can_be_mirrored = annotations.densepose_points is None or symmetry is not None
        with tf.device("CPU"):
            self._offsets = tf.constant(annotations.offsets)
            self._columns = {
                "boxes": tf.constant(annotations.boxes),
                "label": tf.constant(np.where(annotations.crowd, CROWD, annotations.labels)),
            }
            if annotations.masks is not None:
                self._columns["mask"] = tf.constant(annotations.masks)
            if annotations.keypoints is not None:
                self._columns["keypoints"] = tf.constant(annotations.keypoints)
                self._twins = tf.constant(annotations.mirrored_keypoints)
            for name in ("densepose_points", "densepose_masks"):
                if getattr(annotations, name) is not None:
                    self._columns[name] = tf.constant(getattr(annotations, name))
            self._symmetry = None if symmetry is None else tf.constant(symmetry)

    def scaled(self, index: tf.Tensor, factor: tf.Tensor, key: tf.Tensor) -> dict:
        """The objects of an image, in the pixels of the scaled image.

        Args:
            index: int64, number of the image.
            factor: float32 2, factors of x and of y.
            key: int64 2, key of the draw of a subset.
        """
        start, stop = self._offsets[index], self._offsets[index + 1]
        order = tf.argsort(tf.random.stateless_uniform([stop - start], key, alg="philox"))
        chosen = start + tf.cast(tf.sort(order[: self.max_objects]), tf.int64)
        objects = {name: tf.gather(column, chosen) for name, column in self._columns.items()}
        objects["boxes"] *= tf.tile(factor, [2])
        if "mask" in objects:
            objects["mask"] = masks.unpack_in_graph(objects["mask"])
        if "keypoints" in objects:
            objects["keypoints"] *= tf.concat([factor, [1.0]], axis=0)
        if "densepose_points" in objects:
            objects |= densepose.unpacked(
                objects["densepose_points"], objects["densepose_masks"], factor
            )
        return objects

    def mirrored(self, objects: dict, width: tf.Tensor) -> dict:
        """The objects in the mirrored image.

        Args:
            objects: dict returned by `scaled`.
            width: width of the image, px, float32.
        """
        x1, y1, x2, y2 = tf.unstack(objects["boxes"], axis=-1)
        mirrored = {**objects, "boxes": tf.stack([width - x2, y1, width - x1, y2], axis=-1)}
        if "mask" in objects:
            mirrored["mask"] = tf.reverse(objects["mask"], [2])
        if "keypoints" in objects:
            twins = tf.gather(objects["keypoints"], self._twins, axis=1)
            x, y, visibility = tf.unstack(twins, axis=-1)
            x = tf.where(visibility > 0, width - x, 0.0)
            mirrored["keypoints"] = tf.stack([x, y, visibility], axis=-1)
        if "densepose_points" in objects:
            mirrored |= densepose.mirrored(
                objects["densepose_points"], objects["densepose_masks"], width, self._symmetry
            )
        return mirrored

    def filled_up(self, objects: dict) -> dict:
        """The objects and empty rows after them: G rows, static shapes, label `EMPTY`."""

        def fill_up(x, value):
            missing = [[0, self.max_objects - tf.shape(x)[0]]] + [[0, 0]] * (x.shape.rank - 1)
            x = tf.pad(x, missing, constant_values=value)
            return tf.ensure_shape(x, [self.max_objects, *x.shape[1:]])

        return {name: fill_up(x, EMPTY if name == "label" else 0) for name, x in objects.items()}
