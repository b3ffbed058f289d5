"""Examination of images with label maps, and all kinds of problems that they can have."""

import dataclasses

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf.data import exif, image_ops
from moco_tf.data.findings import NOTE, REFUSED, WARNING, Findings, Kind
from moco_tf.log import log
from moco_tf.segmentation import label_png
from moco_tf.segmentation.sources import IGNORED, Pairs

COLOR_MAP = Kind(
    REFUSED,
    "label maps in color",
    "Write the number of the class in each pixel, as PNG of one channel or with a palette.",
)
OTHER_FORMAT = Kind(
    REFUSED,
    "label maps that are no PNG of one channel and at most 8 bits",
    "Write the number of the class in each pixel, as PNG of one channel or with a palette.",
)
UNREADABLE = Kind(
    REFUSED, "pairs of which an image or map cannot be decoded", "Replace or remove them."
)
WRONG_SIZE = Kind(REFUSED, "label maps of another size than their images", "Write the maps again.")
TURNED = Kind(
    REFUSED,
    "images that their EXIF orientation turns by 90 degrees, with maps of the turned size",
    "Images are read as they are stored. Store them turned, for example by `mogrify -auto-orient "
    "*.jpg` or PIL's ImageOps.exif_transpose.",
)
MAYBE_TURNED = Kind(
    WARNING,
    "images that their EXIF orientation turns or mirrors",
    "Images are read as they are stored, but most tools annotate what viewers show. Look at their "
    "pictures.",
)
UNKNOWN = Kind(
    REFUSED,
    "label maps with numbers of no class",
    "Maps hold the classes from 0 on and 255, which is ignored. Correct --config.data.num_classes, "
    "ignore numbers by --config.data.ignored, or write the maps again.",
)
FROM_ONE = Kind(
    REFUSED,
    "classes numbered from 1",
    "Subtract 1 from the maps, or count class 0, which then has no pixel, in "
    "--config.data.num_classes.",
    counted=False,
)
BINARY = Kind(
    REFUSED,
    "only class 0 and 255, which is ignored",
    "Masks of 0 and 255 must become maps of 0 and 1.",
    counted=False,
)
NO_CLASS = Kind(
    REFUSED, "only ignored pixels", "Label maps must have pixels of a class.", counted=False
)
EMPTY_CLASS = Kind(WARNING, "classes without a pixel", "They cannot be learned or scored.")
IGNORED_SHARE = Kind(NOTE, "ignored pixels", "They are neither learned nor scored.", counted=False)
PNG_COLORS = (2, 4, 6)  # color types of the header with more than one channel


@dataclasses.dataclass(frozen=True)
class Examination:
    """What a check of pairs gives.

    Attributes:
        findings: what is wrong or odd.
        sizes: heights and widths of the images, int Nx2; 0 for a pair that cannot be decoded.
        pixels: pixels of each number in all maps, int 256.
        images: number of maps that have each number, int 256.
    """

    findings: Findings
    sizes: np.ndarray
    pixels: np.ndarray
    images: np.ndarray


def check(pairs: Pairs, address: str, quiet: bool = False) -> np.ndarray:
    """Checks all images and label maps by reading them once, and logs what is odd.

    Args:
        pairs: images and label maps.
        address: address of the pairs, for messages.
        quiet: show no progress bar.

    Returns:
        Heights and widths of the images, int Nx2.

    Raises:
        ValueError: if a file cannot be decoded, a map has another size than its image, a number
            in a map is neither a class nor ignored, or all pixels are ignored or of class 0.
    """
    examined = examine(pairs, quiet)
    examined.findings.refuse(address)
    for kind in examined.findings.kinds(WARNING, NOTE):
        log.warning("%s: %s", address, examined.findings.describe(kind))
    log.info("%s: %d images of %d classes", address, pairs.num_examples, len(pairs.classes))
    return examined.sizes


def examine(pairs: Pairs, quiet: bool = False) -> Examination:
    """Reads all images and label maps once.

    Args:
        pairs: images and label maps.
        quiet: show no progress bar.
    """
    findings = Findings()
    files = np.arange(pairs.num_examples), list(pairs.images), list(pairs.labels)
    data = tf.data.Dataset.from_tensor_slices(files).map(_look, tf.data.AUTOTUNE)
    data = data.ignore_errors(log_warning=False).as_numpy_iterator()
    sizes = np.zeros((pairs.num_examples, 2), int)
    pixels, images = np.zeros(256, int), np.zeros(256, int)
    data = tqdm(data, "checking", pairs.num_examples, unit="pair", disable=quiet)
    for index, size, label_size, counts, head in data:
        sizes[index] = size
        pixels += counts
        images += counts > 0
        _look_at_size(findings, pairs, index, size, label_size, exif.orientation(head))
        unknown = np.flatnonzero((counts > 0) & (pairs.table < 0))
        if len(unknown):
            shares = [f"{n} in {counts[n] / counts.sum():.1%}" for n in unknown[:5].tolist()]
            findings.add(
                UNKNOWN, pairs.labels[index], value=f"has {', '.join(shares)} of the pixels"
            )
    for index in np.flatnonzero(sizes[:, 0] == 0):
        findings.add(*_problem(pairs, index))
    _look_at_numbers(findings, pairs, pixels)
    return Examination(findings, sizes, pixels, images)


@tf.function(
    autograph=False,
    input_signature=[
        tf.TensorSpec([], tf.int64),
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.string),
    ],
)
def _look(index, image_path, label_path):
    """Index, sizes of image and map, pixels of each number in the map, start of the image file."""
    encoded = tf.io.read_file(image_path)
    numbers = tf.cast(label_png.decode(tf.io.read_file(label_path)), tf.int32)
    counts = tf.math.bincount(tf.reshape(numbers, [-1]), minlength=256)
    head = tf.strings.substr(encoded, 0, exif.HEAD_BYTES)
    return index, tf.shape(image_ops.decode(encoded))[:2], tf.shape(numbers), counts, head


def _look_at_size(findings, pairs, index, size, label_size, orientation):
    """Adds findings about the size and the EXIF orientation of a pair."""
    text = f"{label_size} px, image {size} px"
    if orientation > 1:
        text += f", EXIF orientation {orientation}: {exif.TURNS[orientation]}"
    if (size != label_size).any():
        is_turned = orientation >= 5 and (size == label_size[::-1]).all()
        findings.add(TURNED if is_turned else WRONG_SIZE, pairs.labels[index], value=text)
    elif orientation > 1:
        findings.add(MAYBE_TURNED, pairs.images[index], value=text)


def _problem(pairs, index):
    """Kind, file, record, field and value of a pair that cannot be decoded."""
    path = pairs.labels[index]
    with tf.io.gfile.GFile(path, "rb") as file:
        encoded = file.read()
    head = encoded[:26].ljust(26, b"\0")
    is_png = head.startswith(b"\x89PNG")
    if is_png and head[25] in PNG_COLORS:
        try:
            image = tf.io.decode_png(encoded, channels=3).numpy().reshape(-1, 3)
        except tf.errors.InvalidArgumentError:
            return UNREADABLE, path, "", "", None
        colors = [tuple(color) for color in np.unique(image, axis=0).tolist()]
        shown = ", ".join(map(str, colors[:4]))
        return COLOR_MAP, path, "", "", f"{len(colors)} colors, such as {shown}"
    if not is_png or head[24] > 8:
        what = f"a PNG of {head[24]} bits" if is_png else f"starts with {head[:4]!r}"
        return OTHER_FORMAT, path, "", "", what
    return UNREADABLE, pairs.images[index], "", "", f"map {path}"


def _look_at_numbers(findings, pairs, pixels):
    """Adds findings about the numbers of all maps together."""
    total = max(pixels.sum(), 1)
    is_ignored = pairs.table == IGNORED
    is_class = (pairs.table >= 0) & ~is_ignored
    ignored = pixels[is_ignored].sum()
    used = np.flatnonzero(pixels)
    shares = ", ".join(f"{n}: {pixels[n] / total:.1%}" for n in used[:6].tolist())
    if not pixels.sum():
        return  # nothing could be decoded
    if not pixels[is_class].any():
        findings.add(NO_CLASS, value=f"{shares} of the pixels")
        return
    counts = np.zeros(len(pairs.classes), int)
    np.add.at(counts, pairs.table[is_class], pixels[is_class])
    if len(counts) > 1 and not counts[1:].any() and pixels[IGNORED]:
        findings.add(BINARY, value=f"{shares} of the pixels")
        return
    numbers = used[~is_ignored[used]]
    if len(numbers) and numbers.tolist() == list(range(1, len(pairs.classes) + 1)):
        findings.add(FROM_ONE, value=f"{shares} of the pixels")
    empty = [name for name, count in zip(pairs.classes, counts, strict=True) if not count]
    findings.add(EMPTY_CLASS, value=", ".join(empty), count=len(empty))
    if ignored:
        findings.add(IGNORED_SHARE, value=f"{ignored / total:.1%} of all")
