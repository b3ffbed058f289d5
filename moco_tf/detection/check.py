"""Check of annotated images for detection: facts, classes, findings, and pictures."""

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moco_tf.data import image_ops
from moco_tf.data.findings import REFUSED, WARNING
from moco_tf.detection.data import images, skeletons
from moco_tf.detection.data.annotations import examine
from moco_tf.detection.data.objects import RawAnnotations
from moco_tf.detection.drawing import draw
from moco_tf.reports import pages, plots
from moco_tf.reports.checks import Check

COLUMNS = 3  # pictures in a row
AREAS = (32**2, 96**2)  # square px, between COCO's small, medium and large objects


def check(
    address: str,
    *,
    training: bool = True,
    masks: bool = False,
    keypoints: bool = False,
    read_images: bool = True,
    shown: int = 12,
    quiet: bool = False,
) -> Check:
    """Checks the annotations of an address and its images.

    Args:
        address: address of the images, such as coco:IMAGES_DIR,JSON.
        training: whether they are to be trained on, or to be a test set.
        masks: whether masks are needed.
        keypoints: whether keypoints are needed.
        read_images: whether to decode all images.
        shown: number of pictures.
        quiet: shows no progress bar.

    Raises:
        ValueError: for an unknown address, and for files that are missing or of another format.

    Example:
        print(checks.text(check("voc:BCCD:trainval")))
    """
    examination = examine(address, training=training, masks=masks, keypoints=keypoints)
    raw, findings = examination.raw, examination.findings
    if read_images:
        images.examine(raw.images, raw.sizes, findings, quiet=quiet)
    table = _Columns(raw)
    header, rows = _classes(raw, table)
    facts = _facts(raw, table, masks, keypoints)
    if not findings.kinds(REFUSED):
        kept = examination.selected
        text = f"{kept.is_shown.sum():,} images with {len(kept.order):,} objects"
        facts.append(("for training" if training else "for the test", text))
    return Check(address, findings, facts, header, rows, _pictures(raw, table, shown))


class _Columns:
    """Columns of the objects whose image and class are known."""

    def __init__(self, raw):
        image = np.asarray(raw.objects.image, np.int64)
        label = np.asarray(raw.objects.label, np.int64)
        self.rows = np.flatnonzero((image >= 0) & (label >= 0))
        self.image, self.label = image[self.rows], label[self.rows]
        self.boxes = np.array(raw.objects.box, float).reshape(-1, 4)[self.rows]
        self.crowd = np.array(raw.objects.crowd, bool)[self.rows]
        self.difficult = np.array(raw.objects.difficult, bool)[self.rows]
        self.area = np.array(raw.objects.area, float)[self.rows]
        self.counts = np.bincount(self.image, minlength=len(raw.images))


def _facts(raw, table, masks, keypoints):
    facts = [("images", f"{len(raw.images):,}")]
    sizes = np.array(raw.sizes).reshape(-1, 2)
    if len(sizes):
        (h, w), (height, width) = sizes.min(axis=0), sizes.max(axis=0)
        text = f"{w} x {h}" if (h, w) == (height, width) else f"{w} x {h} to {width} x {height}"
        facts[0] = ("images", f"{len(sizes):,}, {text} px (width x height)")
        facts.append(("without objects", f"{int(np.sum(table.counts == 0)):,}"))
    facts.append(("objects", f"{len(table.rows):,} of {len(raw.classes)} classes"))
    if not len(table.rows):
        return facts
    facts.append(
        ("objects an image", f"median {np.median(table.counts):g}, at most {table.counts.max():,}")
    )
    groups = np.bincount(np.digitize(table.area, AREAS), minlength=3)
    names = ("small (below 32 x 32 px)", "medium", "large (from 96 x 96 px)")
    facts.append(
        ("sizes", ", ".join(f"{n:,} {name}" for n, name in zip(groups, names, strict=True)))
    )
    for name, column in (("crowds", table.crowd), ("difficult", table.difficult)):
        if column.any():
            facts.append((name, f"{int(column.sum()):,}"))
    if masks:
        with_mask = raw.objects.has_mask()[table.rows].sum()
        facts.append(("masks", f"{with_mask:,}, {len(raw.objects.rles):,} of them run lengths"))
    if keypoints and raw.keypoint_names:
        labeled = (raw.objects.keypoints[table.rows][..., 2] > 0).sum(axis=1)
        names = ", ".join(raw.keypoint_names)
        facts.append(("keypoints", f"{len(raw.keypoint_names)}: {names}"))
        facts.append(("pictures", "keypoints named left point left, those named right point right"))
        facts.append(("labeled", f"{labeled.sum():,} keypoints of {np.sum(labeled > 0):,} objects"))
    return facts


def _classes(raw, table):
    """Header and rows of the table of classes that have objects."""
    header = ["class", "id", "objects", "images", "crowds", "median width x height, px"]
    rows = []
    sides = table.boxes[:, 2:] - table.boxes[:, :2]
    for number, (name, category) in enumerate(zip(raw.classes, raw.category_ids, strict=True)):
        is_of_class = table.label == number
        count = int(is_of_class.sum())
        if not count:
            continue  # a finding lists the classes without an object
        width, height = np.median(sides[is_of_class], axis=0)
        row = [name, category, f"{count:,}", f"{len(np.unique(table.image[is_of_class])):,}"]
        row += [f"{int(table.crowd[is_of_class].sum()):,}"]
        rows.append([*row, f"{width:.0f} x {height:.0f}"])
    return header, rows


def _pictures(raw: RawAnnotations, table: _Columns, shown: int) -> Iterator[str]:
    """One figure of images with their objects: those that findings name, then some of the set."""
    candidates = np.flatnonzero(table.counts > 0)
    candidates = candidates if len(candidates) else np.arange(len(raw.images))
    if not len(candidates) or not shown:
        return
    named = _named(raw, table)[: shown // 2]
    places = np.unique(np.linspace(0, len(candidates) - 1, shown - len(named)).astype(int))
    numbers = [*named, *(n for n in candidates[places].tolist() if n not in named)]
    pictures = [(number, _image(raw.images[number])) for number in numbers]
    pictures = [(number, image) for number, image in pictures if image is not None]
    if not pictures:
        return
    lines = math.ceil(len(pictures) / COLUMNS)
    shapes = [min(image.shape[0] / image.shape[1], 2) for _, image in pictures]
    heights = [4 * max(shapes[i : i + COLUMNS]) + 0.3 for i in range(0, len(shapes), COLUMNS)]
    figure = Figure(figsize=(4 * COLUMNS, sum(heights)))
    ratios = {"height_ratios": heights}
    axes = figure.subplots(lines, COLUMNS, squeeze=False, gridspec_kw=ratios).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (number, image) in zip(axes, pictures, strict=False):
        draw(axis, image, raw.classes, **_objects(raw, table, number))
        title = plots.plain(str(raw.images[number]).rsplit("/", 1)[-1])
        title += " (named by a finding)" if number in named else ""
        axis.set_title(title, fontsize=7)
    yield pages.figure(figure)


def _named(raw, table):
    """Numbers of the images that findings name, or whose objects they name; the worst first."""
    findings = raw.findings
    kinds = findings.kinds(REFUSED, WARNING)
    shown = [finding for kind in kinds for finding in findings.shown(kind)]
    number_of_path = {path: number for number, path in enumerate(raw.images)}
    places = {(finding.file, finding.record) for finding in shown}
    number_of_place = {}
    for row, image in zip(table.rows.tolist(), table.image.tolist(), strict=True):
        place = raw.place_of(row)
        if place in places:
            number_of_place[place] = image
    numbers = []
    for finding in shown:
        numbers.append(number_of_place.get((finding.file, finding.record)))
        numbers += [number_of_path.get(finding.file), number_of_path.get(finding.record)]
    return [number for number in dict.fromkeys(numbers) if number is not None]


def _marker(name):
    """Marker of a keypoint: it points left or right if its name says a side."""
    words = skeletons.words_of(name)
    return "<" if "left" in words else ">" if "right" in words else "o"


def _image(path):
    """The image at a path, uint8 HxWx3; None if it cannot be read."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return image_ops.decode(tf.constant(file.read())).numpy()
    except (tf.errors.OpError, OSError):
        return None


def _objects(raw, table, number):
    """The objects of an image, as arguments of `draw`."""
    in_image = np.flatnonzero(table.image == number)
    rows = table.rows[in_image]
    has_masks = len(raw.objects.object_ends) == len(raw.objects) + 1
    height, width = map(int, raw.sizes[number])
    rles = [raw.objects.rles.get(row) for row in rows]
    return {
        "boxes": table.boxes[in_image],
        "label": table.label[in_image],
        "rles": [
            r if r is not None and tuple(r["size"]) == (height, width) else None for r in rles
        ],
        "polygons": [raw.objects.polygons(row) for row in rows] if has_masks else None,
        "keypoints": raw.objects.keypoints[rows] if raw.keypoint_names else None,
        "markers": [_marker(name) for name in raw.keypoint_names],
        "dashed": (table.crowd | table.difficult)[in_image],
    }
