"""Annotations of detection data sets, held in memory, and the interface of annotation readers.

A reader is a module in this folder, or your own that Python can import. It has these names:

    ADDRESSES = ("yolo:FOLDER",)  # forms of its addresses, for messages

    def read(address, rest, *, masks, keypoints, densepose):
        ...
        return RawAnnotations(images, ids, sizes, classes, category_ids, objects)

    def files(address, rest):  # optional, for sets of few annotation files
        return [path]  # what `read` depends on; with it annotations are kept in WORKDIR/sources

`--config.data.train=yolo:FOLDER` calls `read` of yolo.py with the whole address, for messages, and
the text after its first colon. The three flags say what the run needs besides boxes and classes: a
reader that cannot give it raises a ValueError. `RawAnnotations` and `Objects` are described in
objects.py; voc.py is a short reader, coco.py one with everything. CONTRIBUTING.md shows one.

A reader reports a record that it cannot use to the findings of `RawAnnotations`, by a kind of
problems.py. `examine` checks what all formats have in common.
"""

import collections
import dataclasses
import functools
import logging
import sys
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from moco_tf import addresses
from moco_tf.data.findings import REFUSED, WARNING, Findings
from moco_tf.detection.data import cache, geometry, images, packing, problems, selection, skeletons
from moco_tf.detection.data.objects import RawAnnotations
from moco_tf.log import log


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
        keypoint_pairs: given counterparts of keypoints, "NAME:NAME", see `skeletons.twins`.
        keypoint_sigmas: given constants of OKS, J; None for COCO's, see `skeletons.sigmas_of`.
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
    keypoint_pairs: tuple = ()
    keypoint_sigmas: tuple | None = None
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
        """Number of each keypoint's counterpart in the mirrored image: int64 J."""
        return skeletons.twins(self.keypoint_names, self.keypoint_pairs)

    @property
    def sigmas(self) -> np.ndarray | None:
        """The constants of OKS, float J; None for a skeleton that has none."""
        return skeletons.sigmas_of(self.keypoint_names, self.keypoint_sigmas)


@dataclasses.dataclass(frozen=True)
class Examination:
    """What a check of annotations gives.

    Attributes:
        raw: all images and objects of the files that could be read.
        selected: which of them can be trained on or tested with.
        options: arguments of `examine`.
    """

    raw: RawAnnotations
    selected: selection.Selection
    options: dict

    @property
    def findings(self) -> Findings:
        """What is wrong, odd or left out."""
        return self.raw.findings

    @functools.cached_property
    def annotations(self) -> Annotations | None:
        """What can be trained on or tested with; None if the findings refuse it."""
        refused = self.findings.kinds(REFUSED)
        return None if refused else _packed(self.raw, self.selected, **self.options)


def examine(
    address: str,
    *,
    training: bool,
    masks: bool = False,
    keypoints: bool = False,
    densepose: bool = False,
    keep_empty: bool = False,
    keypoint_pairs: Sequence[str] = (),
    keypoint_sigmas: Sequence[float] | None = None,
) -> Examination:
    """Reads the annotations of an address and checks them, without their images.

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
        keep_empty: whether training keeps images without any object, as background.
        keypoint_pairs, keypoint_sigmas: see `Annotations`.

    Raises:
        ValueError: for an unknown address, and for files that are missing or of another format.
    """
    reader, rest = addresses.module_of(sys.modules[__package__], address, "config.data")
    raw = reader.read(address, rest, masks=masks, keypoints=keypoints, densepose=densepose)
    findings = raw.findings
    if keypoints:
        shape = len(raw.objects), len(raw.keypoint_names), 3
        raw.objects.keypoints = np.array(raw.objects.keypoints, np.float32).reshape(shape)
    for kind, names in ((problems.SAME_IMAGE, raw.ids), (problems.SAME_FILE, raw.images)):
        for name, count in collections.Counter(names).items():
            if count > 1:
                findings.add(kind, raw.source, f"image {name!r}", count=count - 1)
    geometry.examine(raw, keypoint_pairs)
    names = raw.keypoint_names
    if names and skeletons.sigmas_of(names, keypoint_sigmas) is None:
        findings.add(problems.NO_SIGMAS, raw.source, value=", ".join(names), count=len(names))
    selected = selection.select(
        raw,
        training=training,
        masks=masks,
        keypoints=keypoints,
        densepose=densepose,
        keep_empty=keep_empty,
    )
    options = {
        "training": training,
        "masks": masks,
        "keypoints": keypoints,
        "densepose": densepose,
        "keypoint_pairs": tuple(keypoint_pairs),
        "keypoint_sigmas": None if keypoint_sigmas is None else tuple(keypoint_sigmas),
    }
    return Examination(raw, selected, options)


def open_annotations(address: str, *, index_dir: str | None = None, **options) -> Annotations:
    """Opens the images and annotations of an address, and logs what `examine` finds.

    Args:
        address: "READER:REST", such as coco:IMAGES_DIR,JSON; see the top of this file.
        index_dir: folder of the run, local or gs://, in which annotations of readers that have
            `files` are kept for its next start; None keeps them nowhere.
        options: the other arguments of `examine`.

    Raises:
        ValueError: for what `examine` raises, and if a finding refuses training.
    """
    reader, rest = addresses.module_of(sys.modules[__package__], address, "config.data")
    make = functools.partial(_examined, address, options)
    if index_dir and hasattr(reader, "files"):
        files = reader.files(address, rest)
        fields, messages = cache.kept(index_dir, address, files, options, make)
    else:
        fields, messages = make()
    for level, message in messages:
        log.log(level, "%s: %s", address, message)
    return Annotations(**fields)


def _examined(address, options):
    """Fields of the `Annotations` of an address, and what to log of them: (level, text)."""
    examination = examine(address, **options)
    annotations, findings = examination.annotations, examination.findings
    findings.refuse(address)
    counts = f"{annotations.num_examples} images with {len(annotations.boxes)} objects"
    messages = [*findings.messages(), (logging.INFO, counts + findings.dropped())]
    return vars(annotations), messages


def _packed(
    raw, selected, *, training, masks, keypoints, densepose, keypoint_pairs, keypoint_sigmas
):
    """The `Annotations` of a selection."""
    objects, order, boxes = raw.objects, selected.order, selected.boxes
    sizes = np.array(raw.sizes, np.int32).reshape(-1, 2)
    shown = np.flatnonzero(selected.is_shown)
    counts = np.bincount(selected.image[order], minlength=len(sizes))[shown]
    image_sizes = sizes[selected.image]

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
        rles=packing.mask_rles(objects, order, image_sizes) if masks and not training else None,
        keypoints=objects.keypoints[order] if keypoints else None,
        keypoint_names=tuple(raw.keypoint_names),
        keypoint_pairs=keypoint_pairs,
        keypoint_sigmas=keypoint_sigmas,
        densepose_points=packing.densepose_points(objects, order) if densepose else None,
        densepose_masks=(
            packing.densepose_masks(objects, order, boxes) if densepose and training else None
        ),
        source=raw.source,
    )


def check(annotations: Annotations, address: str, quiet: bool = False) -> None:
    """Decodes all images once, so that none can stop a run after days, and logs what is odd.

    COCO train2017 takes about 15 minutes of one core, so a minute on most machines with GPUs.

    Args:
        annotations: `Annotations`.
        address: address of the annotations, for messages.
        quiet: shows no progress bar.

    Raises:
        ValueError: if an image is missing, cannot be decoded or has another size than annotated.
    """
    findings = Findings()
    images.examine(annotations.images, annotations.sizes, findings, quiet=quiet)
    findings.refuse(address)
    for kind in findings.kinds(WARNING):
        log.warning("%s: %s", address, findings.describe(kind))


def paths(annotations: Annotations) -> Callable[[tf.Tensor], tf.Tensor]:
    """A graph function from an image's number, int64 scalar, to its path."""
    with tf.device("CPU"):
        images = tf.constant(annotations.images)
    return lambda index: tf.gather(images, index)
