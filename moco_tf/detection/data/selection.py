"""Selection of images and objects to train on or to test with; all that is dropped is counted."""

import dataclasses

import numpy as np

from moco_tf.data.findings import REFUSED
from moco_tf.detection.data import problems
from moco_tf.detection.data.objects import RawAnnotations

SMALLEST_PX = 1  # a box to train on is wider and higher; VOC's boxes of one point are not


@dataclasses.dataclass(frozen=True)
class Selection:
    """What is kept of a set.

    Attributes:
        order: int M, numbers of the kept objects, sorted by image.
        is_shown: bool N, images that are kept.
        boxes: float64, boxes of all objects: x1, y1, x2, y2, px, for training within their images.
        image: int64, image of each object; below 0 if it is none of the set's.
    """

    order: np.ndarray
    is_shown: np.ndarray
    boxes: np.ndarray
    image: np.ndarray


def select(
    raw: RawAnnotations,
    *,
    training: bool,
    masks: bool,
    keypoints: bool,
    densepose: bool,
    keep_empty: bool = False,
) -> Selection:
    """Selects what can be trained on, or all for a test, and adds what is left out as findings.

    Args:
        raw: annotations as a reader returns them; their findings are extended.
        training: whether it is for training.
        masks, keypoints, densepose: what is needed besides boxes.
        keep_empty: whether training keeps images without any object, as background.
    """
    objects, findings = raw.objects, raw.findings
    image = np.asarray(objects.image, np.int64)
    label = np.asarray(objects.label, np.int64)
    crowd = np.array(objects.crowd, bool)
    sizes = np.array(raw.sizes, float).reshape(-1, 2)
    boxes = np.array(objects.box, float).reshape(-1, 4)
    is_known = (image >= 0) & (label >= 0)
    if training and len(sizes):
        boxes = np.clip(boxes, 0, np.tile(sizes[image][:, ::-1], 2))
    is_small = is_known & ~(boxes[:, 2:] - boxes[:, :2] > SMALLEST_PX).all(axis=1)

    def box_place(i):
        x1, y1, x2, y2 = np.array(objects.box[4 * i : 4 * i + 4]).round(2).tolist()
        return *raw.place_of(i), "", f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g}"

    kind = problems.SMALL if training else problems.SMALL_TEST
    findings.add_each(kind, np.flatnonzero(is_small), box_place)
    findings.add_each(
        problems.SHORT_POLYGON, np.asarray(objects.short_polygons, np.int64), raw.place_of
    )
    is_kept = is_known & ~(is_small & training)
    is_useful = is_kept & ~crowd
    if not training:
        is_useful &= ~np.array(objects.difficult, bool)
    _require_any(raw, is_known, is_useful)
    if masks and training:
        is_bare = is_kept & ~crowd & ~objects.has_mask()
        findings.add_each(problems.NO_MASK, np.flatnonzero(is_bare), raw.place_of)
        is_kept &= ~is_bare
        is_useful &= ~is_bare
    nothing = problems.NOTHING_LEFT
    if keypoints:
        is_useful &= (np.asarray(objects.keypoints)[..., 2] > 0).any(axis=-1)
        nothing = problems.NO_LABELED_KEYPOINTS
    if densepose:
        is_useful &= objects.has_densepose()
        nothing = problems.NO_DENSEPOSE
    _require_parts(raw, is_useful, masks, keypoints, densepose)
    is_shown = _shown(raw, image, is_known, is_useful, nothing, training, keep_empty)
    order = np.flatnonzero(is_kept & is_shown[image]) if len(sizes) else np.zeros(0, int)
    order = order[np.argsort(image[order], kind="stable")]
    return Selection(order, is_shown, boxes, image)


def _shown(raw, image, is_known, is_useful, nothing, training, keep_empty):
    """Which images are kept: bool N. Adds those that are not as findings."""
    count = len(raw.images)
    has_any = np.bincount(image[is_known], minlength=count) > 0
    is_empty = ~has_any

    def place(i):
        return raw.file_of(i), raw.images[i]

    if not training:
        raw.findings.add_each(problems.EMPTY_TEST, np.flatnonzero(is_empty), place)
        return np.full(count, True)
    is_shown = np.bincount(image[is_useful], minlength=count) > 0
    kind = problems.KEPT_EMPTY if keep_empty else problems.EMPTY
    raw.findings.add_each(kind, np.flatnonzero(is_empty), place)
    raw.findings.add_each(nothing, np.flatnonzero(has_any & ~is_shown), place)
    return is_shown | (is_empty & keep_empty)


def _require_any(raw, is_known, is_useful):
    """Refuses a set without objects that count."""
    findings, objects = raw.findings, raw.objects
    if is_useful.any() or findings.kinds(REFUSED):
        return
    total = int(np.sum(is_known))
    crowds = int(np.sum(np.array(objects.crowd, bool) & is_known))
    difficult = int(np.sum(np.array(objects.difficult, bool) & is_known))
    if not total:
        kind, text = problems.NO_OBJECTS, f"{len(raw.images)} images"
    elif crowds + difficult < total:
        kind, text = problems.NONE_LEFT, f"{total} objects{findings.dropped()}"
    else:
        text = f"{total} objects, {crowds} of them crowds, {difficult} difficult"
        kind = problems.ONLY_CROWDS
    findings.add(kind, raw.source, value=text)


def _require_parts(raw, is_useful, masks, keypoints, densepose):
    """Refuses a set in which nothing has the masks, keypoints or surface that the run needs."""
    findings, objects = raw.findings, raw.objects
    if findings.kinds(REFUSED):
        return
    has_any = is_useful.any()
    text = f"{len(objects)} objects{findings.dropped()}"
    if keypoints and not has_any:
        findings.add(problems.NO_LABELED, raw.source, value=text)
    elif densepose and not has_any:
        findings.add(problems.NO_SURFACE, raw.source, value=text)
    elif masks and not objects.has_mask()[is_useful].any():
        findings.add(problems.NO_MASKS, raw.source, value=text)
