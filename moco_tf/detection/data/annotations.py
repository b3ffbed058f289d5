"""Images with annotated objects: a whole set in memory, in flat arrays."""

import collections
import dataclasses
import sys

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask
from tqdm import tqdm

from moco_tf import addresses
from moco_tf.data import image_ops
from moco_tf.data.tfdata import plain
from moco_tf.detection.data import densepose as surface_points
from moco_tf.detection.data import masks as instance_masks
from moco_tf.log import log

SMALLEST_PX = 1  # a box to train on is wider and higher; VOC's boxes of one point are not
CHUNK = 512  # objects whose masks are made at once


@dataclasses.dataclass(frozen=True)
class Annotations:
    """N images and the M objects in them, sorted by image.

    Attributes:
        images: paths, N.
        ids: of the images as the files have them, N: int or str.
        sizes: int32 Nx2, heights and widths, px.
        offsets: int64 N + 1: the objects of image i are [offsets[i], offsets[i + 1]).
        boxes: float32 Mx4: x1, y1, x2, y2, px, continuous (pixel i covers [i, i + 1)).
        labels: int32 M, classes from 0.
        crowd: bool M, regions of several objects that are not told apart.
        difficult: bool M, what VOC's evaluation ignores.
        area: float64 M, square px: of the mask where the files say it.
        classes: names, K.
        category_ids: int64 K, the numbers of the classes in the files.
        masks: M packed crops (`masks.pack`), empty for a crowd; None without masks, or for testing.
        rles: M masks of the whole image, RLE; None without masks, or for training.
        keypoints: float32 MxJx3, x, y in px and visibility 0 (unlabelled), 1, 2; or None.
        keypoint_names: J.
        densepose_points: M packed points (`densepose.pack_points`), no bytes where there are none;
            or None.
        densepose_masks: M packed masks (`densepose.pack_masks`), likewise; None for testing.
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
    def num_examples(self):
        """How many images there are."""
        return len(self.images)

    @property
    def counts(self):
        """Objects of each image: int64 N."""
        return np.diff(self.offsets)

    @property
    def mirrored_keypoints(self):
        """Which keypoint each one is in the mirrored image, by their names: int64 J."""
        sides, names = {"left": "right", "right": "left"}, list(self.keypoint_names)
        twins = ["_".join(sides.get(w, w) for w in name.split("_")) for name in names]
        twin_or_self = [names.index(t) if t in names else i for i, t in enumerate(twins)]
        return np.array(twin_or_self, np.int64)


def open_annotations(address, *, training, masks=False, keypoints=False, densepose=False):
    """Opens the images and annotations of an address.

    To train on, boxes are clipped to their images, and dropped are: boxes at most 1 px wide or
    high; objects without a mask where masks are needed; images without an object that is no crowd
    and, where keypoints are needed, has a labelled one; likewise for DensePose. (Persons without a
    labelled keypoint stay if another one of the image has some: to take them for background would
    be wrong.) To test on, all is as the files have it.

    Source: detectron2/data/build.py and detectron2/data/datasets.

    Args:
        address: of the `ADDRESSES` of the readers, coco.py, voc.py, lvis.py and cityscapes.py.
        training: whether it is to be trained on.
        masks: whether masks are needed.
        keypoints: whether keypoints are; classes without keypoints are then left out.
        densepose: whether DensePose's annotations are.

    Returns:
        `Annotations`.

    Raises:
        ValueError: for an unknown address, files that are missing or broken, annotations of
            unknown images or classes, and if no objects, masks or keypoints are left.
    """
    module, rest = addresses.module_of(sys.modules[__package__], address, "config.data")
    found = module.read(address, rest, masks=masks, keypoints=keypoints, densepose=densepose)
    objects, image = found.objects, np.array(found.objects.image, np.int64)
    sizes = np.array(found.sizes, np.int32).reshape(-1, 2)
    boxes = np.array(objects.box).reshape(-1, 4)
    shape = len(objects), len(found.keypoint_names), 3
    points = np.array(objects.keypoints, np.float32).reshape(shape) if keypoints else None
    if len(set(found.ids)) < len(found.ids):
        raise ValueError(f"Images of {address!r} must have different ids. Received: some twice.")
    if not np.isfinite(boxes).all():
        where = found.images[image[~np.isfinite(boxes).all(axis=1)][0]]
        raise ValueError(f"Boxes must be finite numbers. Received others, for {where}. Mend them.")

    kept, shown, dropped = np.full(len(objects), True), np.full(len(sizes), True), ""
    if training:
        boxes = np.clip(boxes, 0, np.tile(sizes[image][:, ::-1], 2))
        kept, shown, dropped = _to_train_on(
            objects, image, boxes, points, masks, densepose, len(sizes)
        )
    order = np.flatnonzero(kept)
    order = order[np.argsort(image[order], kind="stable")]
    needed = "objects" + " with masks" * masks + " with keypoints" * keypoints
    needed += " with dp_masks, dp_x, dp_y, dp_I, dp_U and dp_V" * densepose
    lacking = masks and not objects.has_mask()[order].any()
    lacking |= densepose and not objects.has_densepose()[order].any()
    if not len(order) or lacking:
        raise ValueError(
            f"{address!r} must have {needed}. Received: {len(objects)} objects{dropped}."
        )
    log.info("%s: %d images with %d objects%s", address, shown.sum(), len(order), dropped)
    counts = np.bincount(image[order], minlength=len(sizes))[shown]

    def column(values, dtype):
        return np.array(values, dtype)[order]

    return Annotations(
        images=tuple(path for path, is_shown in zip(found.images, shown) if is_shown),
        ids=tuple(number for number, is_shown in zip(found.ids, shown) if is_shown),
        sizes=sizes[shown],
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes=boxes[order].astype(np.float32),
        labels=column(objects.label, np.int32),
        crowd=column(objects.crowd, bool),
        difficult=column(objects.difficult, bool),
        area=column(objects.area, np.float64),
        classes=tuple(found.classes),
        category_ids=np.array(found.category_ids, np.int64),
        masks=_crops(objects, order, boxes) if masks and training else None,
        rles=_rles(objects, order, sizes[image]) if masks and not training else None,
        keypoints=points[order] if keypoints else None,
        keypoint_names=tuple(found.keypoint_names),
        densepose_points=_surface_points(objects, order) if densepose else None,
        densepose_masks=_surface_masks(objects, order, boxes) if densepose and training else None,
        source=found.source,
    )


def _to_train_on(objects, image, boxes, points, masks, densepose, num_images):
    """Which objects and which images are good to train on: two bool arrays, and what is said."""
    crowd, dropped = np.array(objects.crowd, bool), collections.Counter()
    kept = (boxes[:, 2:] - boxes[:, :2] > SMALLEST_PX).all(axis=1)
    dropped[f"boxes at most {SMALLEST_PX} px wide or high"] = np.sum(~kept)
    if masks:
        masked = crowd | objects.has_mask()
        dropped["objects without a mask"] = np.sum(kept & ~masked)
        kept &= masked
    useful = kept & ~crowd
    if points is not None:
        useful &= (points[:, :, 2] > 0).any(axis=1)
    if densepose:
        useful &= objects.has_densepose()
    shown = np.bincount(image[useful], minlength=num_images) > 0
    what = "objects" if points is None else "labelled keypoints"
    what = "DensePose's points" if densepose else what
    dropped[f"images without {what}"] = np.sum(~shown)
    said = "".join(f"; {n:,} {what} dropped" for what, n in dropped.items() if n)
    return kept & shown[image], shown, said


def _crops(objects, order, boxes):
    """The packed crop of each object: bytes, M."""
    packed = []
    starts = range(0, len(order), CHUNK)
    for start in tqdm(starts, "masks", unit_scale=CHUNK, disable=len(order) < 100 * CHUNK):
        chunk = order[start : start + CHUNK]
        crops = instance_masks.crops_of_polygons([objects.polygons(i) for i in chunk], boxes[chunk])
        for number, crop in zip(chunk, crops):
            rle = objects.rles.get(number)
            if objects.crowd[number]:
                packed.append(b"")  # a crowd is never a positive
            elif rle:
                bitmap = coco_mask.decode(rle)
                crop = instance_masks.crop_of_bitmap(bitmap, boxes[number])
                packed.append(instance_masks.pack(crop))
            else:
                packed.append(instance_masks.pack(crop))
    return tuple(packed)


def _rles(objects, order, sizes):
    """The mask of each object in the whole image: RLE, M."""
    return tuple(
        objects.rles.get(i)
        or instance_masks.rle_of_polygons(objects.polygons(i), *map(int, sizes[i]))
        for i in order
    )


def _surface_points(objects, order):
    """DensePose's points of each object: packed, M."""
    known = objects.densepose
    return tuple(surface_points.pack_points(known[i][0]) if i in known else b"" for i in order)


def _surface_masks(objects, order, boxes):
    """DensePose's mask of each object: packed, M."""
    known, own = objects.densepose, np.array(objects.box).reshape(-1, 4)
    return tuple(
        surface_points.pack_masks(known[i][1], own[i], boxes[i]) if i in known else b""
        for i in tqdm(order, "DensePose's masks", disable=len(known) < CHUNK)
    )


def check(annotations, address, quiet=False):
    """Decodes all images once, so that none can end a run of days in its midst.

    (COCO train2017 takes about 15 minutes of one core, so a minute on most machines with GPUs.)

    Args:
        annotations: `Annotations`.
        address: for messages.
        quiet: without a progress bar.

    Raises:
        ValueError: naming images that are missing, cannot be decoded or have another size than the
            annotations say.
    """

    @plain
    def look(index):
        return index, tf.shape(image_ops.decode(tf.io.read_file(path_of(index))))[:2]

    path_of, n = paths(annotations), annotations.num_examples
    data = tf.data.Dataset.range(n).map(look, tf.data.AUTOTUNE)
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
            f"The images of {address!r} must be there, in the heights and widths that are "
            f"annotated. Received: {'; '.join(wrong[:3])} ({len(wrong)} in all). Mend the files, "
            "or take these images out of the annotations."
        )


def paths(annotations):
    """A graph function from an image's number, int64 scalar, to its path."""
    with tf.device("CPU"):
        images = tf.constant(annotations.images)
    return lambda index: tf.gather(images, index)
