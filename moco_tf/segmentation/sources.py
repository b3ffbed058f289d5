"""Sources of images with label maps: VOC, Cityscapes, CamVid and folders."""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.data import image_ops
from moco_tf.data.class_names import CAMVID, CITYSCAPES, VOC
from moco_tf.segmentation import label_png

IGNORED = 255  # in label maps, pixels without a class
ADDRESSES = (
    "voc:VOC2012_DIR:SPLIT",
    "cityscapes:DIR:SPLIT",
    "camvid:DIR:SPLIT",
    "folders:IMAGES_DIR,LABELS_DIR",
)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Images and their label maps, of the same size.

    Attributes:
        images: paths of the images.
        labels: paths of the label maps, one for each image.
        classes: names of the classes, or their numbers as text.
        table: class of each number in the files, int32 256; `IGNORED`, or -1 if it is invalid.
    """

    images: tuple
    labels: tuple
    classes: tuple
    table: np.ndarray

    @property
    def num_examples(self) -> int:
        """Number of images."""
        return len(self.images)

    def image(self, index):
        """Image of an index, uint8 HxWx3. A graph function of an int64 scalar, as all below."""
        return image_ops.decode(tf.io.read_file(_gather(self.images, index)))

    def label(self, index):
        """Label map, int32 HxW: classes, `IGNORED`, or -1 for an invalid number."""
        with tf.device("CPU"):
            return tf.gather(tf.constant(self.table), self.numbers(index))

    def numbers(self, index):
        """Numbers in the file of the label map, int32 HxW."""
        return tf.cast(label_png.decode(tf.io.read_file(_gather(self.labels, index))), tf.int32)

    def name(self, index):
        """Path of the image, string scalar, for messages."""
        return _gather(self.images, index)


def _gather(paths, index):
    with tf.device("CPU"):
        return tf.gather(tf.constant(paths), index)


def open_pairs(
    address: str, num_classes: int | None = None, ignored: tuple[int, ...] = ()
) -> Pairs:
    """Opens the images and label maps of an address.

    Args:
        address: address of a form in `ADDRESSES`; SPLIT is for example train. Label maps of VOC's
            train_aug (with SBD) are in SegmentationClassAug.
        num_classes: number of classes, required for folders:; None takes the set's own.
        ignored: numbers in the maps to ignore, besides 255.

    Raises:
        ValueError: for an unknown address, a missing file, or an unknown number of classes.
    """
    name, _, rest = address.partition(":")
    makers = {"voc": _voc, "cityscapes": _cityscapes, "camvid": _camvid, "folders": _folders}
    if name not in makers:
        raise ValueError(
            f"A source of label maps must be one of {', '.join(ADDRESSES)}. Received: {address!r}."
        )
    images, labels, numbers, classes = makers[name](address, rest)
    classes = classes or tuple(map(str, range(num_classes or 0)))
    if not classes or (num_classes and num_classes != len(classes)):
        raise ValueError(
            "`--config.data.num_classes` must be the number of classes in the label maps"
            + (f", {len(classes)} for {name}:" if classes else "")
            + f". Received: {num_classes}, for {address!r}."
        )
    table = np.full(256, -1, np.int32)
    table[numbers or range(len(classes))] = range(len(classes))
    if name == "cityscapes":
        ids = table[:34]  # a view of the label ids
        ids[ids < 0] = IGNORED  # ids that are not evaluated
    if name == "camvid":
        table[11] = IGNORED  # void
    table[[IGNORED, *ignored]] = IGNORED
    _require_files((*images, *labels), address)
    return Pairs(tuple(images), tuple(labels), classes, table)


def _split(address, rest):
    folder, colon, split = rest.rpartition(":")
    if not colon or not tf.io.gfile.isdir(os.path.expanduser(folder)):
        raise ValueError(
            f"The address must be {address.partition(':')[0]}:DIR:SPLIT, DIR a folder that exists. "
            f"Received: {address!r}."
        )
    return os.path.expanduser(folder), split


def _voc(address, rest):
    root, split = _split(address, rest)
    path = os.path.join(root, "ImageSets", "Segmentation", f"{split}.txt")
    _require_files([path], address)
    with tf.io.gfile.GFile(path) as file:
        names = file.read().split()
    folder = "SegmentationClassAug" if split.endswith("aug") else "SegmentationClass"
    images = [storage.below(root, "JPEGImages", f"{name}.jpg") for name in names]
    return (
        images,
        [storage.below(root, folder, f"{name}.png") for name in names],
        None,
        ("background", *VOC),
    )


def _cityscapes(address, rest):
    root, split = _split(address, rest)
    images = sorted(tf.io.gfile.glob(os.path.join(root, "leftImg8bit", split, "*", "*.png")))
    labels = [
        os.path.join(
            *(root, "gtFine", split, os.path.basename(os.path.dirname(path))),
            os.path.basename(path).replace("leftImg8bit", "gtFine_labelIds"),
        )
        for path in images
    ]
    _require_any(images, address)
    return images, labels, list(CITYSCAPES), tuple(CITYSCAPES.values())


def _camvid(address, rest):
    root, split = _split(address, rest)
    images, labels = _same_stems(
        os.path.join(root, split),
        os.path.join(root, f"{split}annot"),
    )
    return images, labels, None, CAMVID


def _folders(address, rest):
    folders = [os.path.expanduser(folder) for folder in rest.split(",")]
    if len(folders) != 2:
        raise ValueError(
            f"The address must be folders:IMAGES_DIR,LABELS_DIR. Received: {address!r}."
        )
    return *_same_stems(*folders), None, ()


def _same_stems(images_dir, labels_dir):
    """Pairs the files of two folders by their names without extensions."""
    by_stem = []
    for folder, endings in ((images_dir, (".jpg", ".jpeg", ".png")), (labels_dir, (".png",))):
        names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
        names = sorted(n for n in names if n.lower().endswith(endings))
        by_stem.append({os.path.splitext(n)[0]: os.path.join(folder, n) for n in names})
        _require_any(names, folder)
        if len(by_stem[-1]) < len(names):
            raise ValueError(
                f"Names in {folder!r} must differ by more than their extensions. Received: "
                f"{len(names)} files with {len(by_stem[-1])} names."
            )
    alone = sorted(by_stem[0].keys() ^ by_stem[1].keys())
    if alone:
        raise ValueError(
            f"Every image in {images_dir!r} must have a label map of the same name in "
            f"{labels_dir!r}, and the reverse. Received without a pair: {', '.join(alone[:5])} "
            f"({len(alone)} in all)."
        )
    return by_stem[0].values(), [by_stem[1][stem] for stem in by_stem[0]]


def _require_any(paths, place):
    if not paths:
        raise ValueError(f"There must be images and label maps. Received: none in {place!r}.")


def _require_files(paths, address):
    missing = [path for path in paths if not tf.io.gfile.exists(path)]
    if missing:
        raise ValueError(
            f"The files of {address!r} must exist. Missing: {', '.join(missing[:3])} "
            f"({len(missing)} in all)."
        )
