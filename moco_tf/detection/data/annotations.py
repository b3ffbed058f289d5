"""Annotations of detection data sets, held in memory, and the interface of annotation readers.

A reader is a module in this folder, or your own that Python can import. It has two names:

    ADDRESSES = ("yolo:FOLDER",)  # forms of its addresses, for messages

    def read(address, rest, *, masks, keypoints, densepose):
        ...
        return RawAnnotations(images, ids, sizes, classes, category_ids, objects)

`--config.data.train=yolo:FOLDER` calls `read` of yolo.py with the whole address, for messages, and
the text after its first colon. The three flags say what the run needs besides boxes and classes: a
reader that cannot give it raises a ValueError. `RawAnnotations` and `Objects` are described in
objects.py; voc.py is a short reader, coco.py one with everything. CONTRIBUTING.md shows one.
"""

import collections
import dataclasses
import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf import addresses
from moco_tf.data import image_ops
from moco_tf.data.tfdata import no_autograph
from moco_tf.detection.data import packing
from moco_tf.log import log

SMALLEST_PX = 1  # a box to train on is wider and higher; VOC's boxes of one point are not


@dataclasses.dataclass(frozen=True)
class Annotations:
    """N images and the M objects in them, sorted by image.

    Attributes:
        images: paths, N.
        ids: ids of the images in the files, N: int or str.
        sizes: int32 Nx2, heights and widths, px.
        offsets: int64 N + 1: the objects of image i are [offsets[i], offsets[i + 1]).
        boxes: float32 Mx4: x1, y1, x2, y2, px, continuous (pixel i covers [i, i + 1)).
        labels: int32 M, classes from 0.
        crowd: bool M, regions of several objects that are not told apart.
        difficult: bool M, objects that VOC's evaluation ignores.
        area: float64 M, square px: of the mask where the files say it.
        classes: names, K.
        category_ids: int64 K, the numbers of the classes in the files.
        masks: M packed crops (`masks.pack`), empty for a crowd; None without masks, or for testing.
        rles: M masks of the whole image, RLE; None without masks, or for training.
        keypoints: float32 MxJx3, x, y in px and visibility 0 (not labeled), 1, 2; or None.
        keypoint_names: J names.
        densepose_points: M packed points (`densepose.pack_points`), no bytes where there are none;
            or None.
        densepose_masks: M packed masks (`densepose.pack_masks`), no bytes where there are none;
            None for testing.
        source: the annotation file; "" if there are many.
    """

    images: tuple
    ids: tuple
    sizes: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    area: np.ndarray
    classes: tuple
    category_ids: np.ndarray
    masks: tuple | None = None
    rles: tuple | None = None
    keypoints: np.ndarray | None = None
    keypoint_names: tuple = ()
    densepose_points: tuple | None = None
    densepose_masks: tuple | None = None
    source: str = ""

    @property
    def num_examples(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def counts(self) -> np.ndarray:
        """Number of objects of each image: int64 N."""
        return np.diff(self.offsets)

    @property
    def mirrored_keypoints(self) -> np.ndarray:
        """Number of each keypoint's counterpart in the mirrored image, by names: int64 J."""
        sides, names = {"left": "right", "right": "left"}, list(self.keypoint_names)
        twins = ["_".join(sides.get(w, w) for w in name.split("_")) for name in names]
        twin_or_self = [names.index(t) if t in names else i for i, t in enumerate(twins)]
        return np.array(twin_or_self, np.int64)


def open_annotations(
    address: str,
    *,
    training: bool,
    masks: bool = False,
    keypoints: bool = False,
    densepose: bool = False,
) -> Annotations:
    """Opens the images and annotations of an address.

    For training, boxes are clipped to their images, and these are dropped: boxes at most 1 px wide
    or high; objects without a mask, if masks are needed; images without an object that is not a
    crowd and that has labeled keypoints or DensePose annotations, if these are needed. A person
    without a labeled keypoint stays if another one of the image has some: to train on it as
    background would be wrong. For testing, everything stays as the files have it.

    Source: detectron2/data/build.py and detectron2/data/datasets.

    Args:
        address: "READER:REST", such as coco:IMAGES_DIR,JSON; see the top of this file.
        training: whether the annotations are for training.
        masks: whether masks are needed.
        keypoints: whether keypoints are needed; classes without keypoints are then left out.
        densepose: whether DensePose annotations are needed.

    Raises:
        ValueError: for an unknown address, files that are missing or broken, annotations of
            unknown images or classes, and if no objects, masks or keypoints are left.
    """
    reader, rest = addresses.module_of(sys.modules[__package__], address, "config.data")
    raw = reader.read(address, rest, masks=masks, keypoints=keypoints, densepose=densepose)
    objects = raw.objects
    image = np.array(objects.image, np.int64)
    sizes = np.array(raw.sizes, np.int32).reshape(-1, 2)
    boxes = np.array(objects.box).reshape(-1, 4)
    points = None
    if keypoints:
        shape = len(objects), len(raw.keypoint_names), 3
        points = np.array(objects.keypoints, np.float32).reshape(shape)
    if len(set(raw.ids)) < len(raw.ids):
        raise ValueError(f"Images of {address!r} must have different ids. Received: some twice.")
    if not np.isfinite(boxes).all():
        path = raw.images[image[~np.isfinite(boxes).all(axis=1)][0]]
        raise ValueError(f"Boxes must be finite numbers. Received others, for {path}. Fix them.")

    is_kept = np.full(len(objects), True)
    is_shown = np.full(len(sizes), True)
    dropped = ""
    if training:
        boxes = np.clip(boxes, 0, np.tile(sizes[image][:, ::-1], 2))
        is_kept, is_shown, dropped = _trainable(
            objects, image, boxes, points, len(sizes), masks=masks, densepose=densepose
        )
    order = np.flatnonzero(is_kept)
    order = order[np.argsort(image[order], kind="stable")]
    needed = "objects" + " with masks" * masks + " with keypoints" * keypoints
    needed += " with dp_masks, dp_x, dp_y, dp_I, dp_U and dp_V" * densepose
    lacking = masks and not objects.has_mask()[order].any()
    lacking |= densepose and not objects.has_densepose()[order].any()
    if not len(order) or lacking:
        raise ValueError(
            f"{address!r} must have {needed}. Received: {len(objects)} objects{dropped}."
        )
    log.info("%s: %d images with %d objects%s", address, is_shown.sum(), len(order), dropped)
    counts = np.bincount(image[order], minlength=len(sizes))[is_shown]
    shown = np.flatnonzero(is_shown)

    def column(values, dtype):
        return np.array(values, dtype)[order]

    return Annotations(
        images=tuple(raw.images[i] for i in shown),
        ids=tuple(raw.ids[i] for i in shown),
        sizes=sizes[shown],
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes=boxes[order].astype(np.float32),
        labels=column(objects.label, np.int32),
        crowd=column(objects.crowd, bool),
        difficult=column(objects.difficult, bool),
        area=column(objects.area, np.float64),
        classes=tuple(raw.classes),
        category_ids=np.array(raw.category_ids, np.int64),
        masks=packing.mask_crops(objects, order, boxes) if masks and training else None,
        rles=packing.mask_rles(objects, order, sizes[image]) if masks and not training else None,
        keypoints=points[order] if keypoints else None,
        keypoint_names=tuple(raw.keypoint_names),
        densepose_points=packing.densepose_points(objects, order) if densepose else None,
        densepose_masks=(
            packing.densepose_masks(objects, order, boxes) if densepose and training else None
        ),
        source=raw.source,
    )


def _trainable(objects, image, boxes, points, num_images, *, masks, densepose):
    """Selects the objects and images to train on: two bool arrays, and a text for the log."""
    crowd = np.array(objects.crowd, bool)
    is_kept = (boxes[:, 2:] - boxes[:, :2] > SMALLEST_PX).all(axis=1)
    dropped = collections.Counter()
    dropped[f"boxes at most {SMALLEST_PX} px wide or high"] = np.sum(~is_kept)
    if masks:
        has_mask = crowd | objects.has_mask()
        dropped["objects without a mask"] = np.sum(is_kept & ~has_mask)
        is_kept &= has_mask
    is_useful = is_kept & ~crowd
    needed = "objects"
    if points is not None:
        is_useful &= (points[:, :, 2] > 0).any(axis=1)
        needed = "labeled keypoints"
    if densepose:
        is_useful &= objects.has_densepose()
        needed = "DensePose's points"
    is_shown = np.bincount(image[is_useful], minlength=num_images) > 0
    dropped[f"images without {needed}"] = np.sum(~is_shown)
    text = "".join(f"; {count:,} {what} dropped" for what, count in dropped.items() if count)
    return is_kept & is_shown[image], is_shown, text


def check(annotations: Annotations, address: str, quiet: bool = False) -> None:
    """Decodes all images once, so that none can stop a run after days.

    COCO train2017 takes about 15 minutes of one core, so a minute on most machines with GPUs.

    Args:
        annotations: `Annotations`.
        address: address of the annotations, for messages.
        quiet: shows no progress bar.

    Raises:
        ValueError: if an image is missing, cannot be decoded or has another size than annotated.
    """
    path_of = paths(annotations)
    n = annotations.num_examples

    @no_autograph
    def size_of(index):
        return index, tf.shape(image_ops.decode(tf.io.read_file(path_of(index))))[:2]

    data = tf.data.Dataset.range(n).map(size_of, tf.data.AUTOTUNE)
    data = data.ignore_errors(log_warning=False).as_numpy_iterator()
    sizes = np.zeros((n, 2), int)
    for index, size in tqdm(data, "checking", n, unit="image", disable=quiet):
        sizes[index] = size
    wrong = [
        f"{annotations.images[i]} "
        + ("is missing or cannot be decoded" if not sizes[i].any() else f"is {sizes[i]} px")
        + f", annotated {annotations.sizes[i]} px"
        for i in np.flatnonzero((sizes != annotations.sizes).any(axis=1))
    ]
    if wrong:
        raise ValueError(
            f"The images of {address!r} must exist and have the annotated heights and widths. "
            f"Received: {'; '.join(wrong[:3])} ({len(wrong)} in all). Fix the files, or take these "
            "images out of the annotations."
        )


def paths(annotations: Annotations) -> Callable[[tf.Tensor], tf.Tensor]:
    """A graph function from an image's number, int64 scalar, to its path."""
    with tf.device("CPU"):
        images = tf.constant(annotations.images)
    return lambda index: tf.gather(images, index)
