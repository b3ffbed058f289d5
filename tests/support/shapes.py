"""Images of colored shapes on noise with their boxes, masks and keypoints, and COCO's scores."""

import contextlib
import io

import numpy as np
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CLASSES = ("disc", "rectangle", "triangle")
MAX_OBJECTS, MASK = 4, 112


def inside(shape, v, u):
    """Whether points are in a shape that fills [0, 1] x [0, 1].

    Args:
        shape: number of its class in `CLASSES`.
        v: rows of the points.
        u: columns of the points.
    """
    square = (v >= 0) & (v < 1) & (u >= 0) & (u < 1)
    if shape == 0:
        return (v - 0.5) ** 2 + (u - 0.5) ** 2 < 0.25
    return square if shape == 1 else square & (np.abs(u - 0.5) < v / 2)


def draw(seed, side=128):
    """One example, a dict in the form of a detector's batch without the batch axis.

    The two keypoints of a shape are its center and the middle of its lower border.
    """
    rng = np.random.default_rng(seed)
    image = rng.uniform(60, 196, (side, side, 3))
    pixel = np.arange(side) + 0.5
    fine = (np.arange(MASK) + 0.5) / MASK
    boxes = np.zeros((MAX_OBJECTS, 4), np.float32)
    label = np.full(MAX_OBJECTS, -1, np.int32)
    mask = np.zeros((MAX_OBJECTS, MASK, MASK), np.uint8)
    keypoints = np.zeros((MAX_OBJECTS, 2, 3), np.float32)
    taken = np.zeros((side, side), bool)
    for row in range(rng.integers(1, 4)):
        height, width = rng.uniform(0.2, 0.45, 2) * side
        y, x = rng.uniform(1, [side - 1 - height, side - 1 - width])
        shape = rng.integers(3)
        where = inside(shape, ((pixel - y) / height)[:, None], (pixel - x) / width)
        if (where & taken).any():
            continue
        taken |= where
        color = rng.permutation([230, 30, rng.uniform(0, 255)])
        image[where] = color + rng.normal(0, 10, (where.sum(), 3))
        boxes[row] = [x, y, x + width, y + height]
        label[row] = shape
        mask[row] = inside(shape, fine[:, None], fine)
        keypoints[row] = [
            [x + width / 2, y + height / 2, 2],
            [x + width / 2, y + height - 0.1, 2],
        ]
    return {
        "x": np.clip(image, 0, 255).astype(np.uint8),
        "size": np.array([side, side], np.int32),
        "boxes": boxes,
        "label": label,
        "mask": mask,
        "keypoints": keypoints,
    }


def batch(first, rows, step=0):
    """A batch of examples."""
    examples = [draw(first + i) for i in range(rows)]
    arrays = {name: np.stack([e[name] for e in examples]) for name in examples[0]}
    return arrays | {"step": np.full(rows, step, np.int64)}


def on_canvas(box, mask, side=128):
    """A mask within its box as pixels of the image: probabilities or 0/1 to bool."""
    x1, y1, x2, y2 = box
    pixel = np.arange(side) + 0.5
    v = np.floor((pixel - y1) / max(y2 - y1, 1e-3) * len(mask)).astype(int)
    u = np.floor((pixel - x1) / max(x2 - x1, 1e-3) * len(mask)).astype(int)
    valid = ((v >= 0) & (v < len(mask)))[:, None] & (u >= 0) & (u < len(mask))
    return valid & (mask[np.clip(v, 0, len(mask) - 1)][:, np.clip(u, 0, len(mask) - 1)] >= 0.5)


def average_precisions(truth, predicted):
    """COCO's (AP, AP50) of boxes, and of masks where some are predicted, by pycocotools.

    Args:
        truth: batch of the true objects.
        predicted: predictions for its images, a dict of arrays.

    Returns:
        Dict from "bbox" and "segm" to two shares.
    """
    side = truth["x"].shape[1]
    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO()
        objects.dataset = {
            "images": [{"id": n, "height": side, "width": side} for n in range(len(truth["x"]))],
            "annotations": _results(truth, side, iscrowd=0),
            "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES)],
        }
        objects.createIndex()
        detected = objects.loadRes(_results(predicted, side))
        iou_types = ("bbox", "segm") if "mask" in predicted else ("bbox",)
        scores = {name: COCOeval(objects, detected, name) for name in iou_types}
        for evaluation in scores.values():
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
    return {name: evaluation.stats[:2] for name, evaluation in scores.items()}


def _results(batch, side, **more):
    """Objects of a batch, true or predicted, in COCO's format."""
    records = []
    for n, row in np.argwhere(np.asarray(batch["label"]) >= 0).tolist():
        x1, y1, x2, y2 = box = np.asarray(batch["boxes"][n][row], float).tolist()
        record = {"id": len(records) + 1, "image_id": n, **more}
        record["category_id"] = int(batch["label"][n][row])
        record |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        if "score" in batch:
            record["score"] = float(batch["score"][n][row])
        if "mask" in batch:
            pixels = on_canvas(box, np.asarray(batch["mask"][n][row]), side)
            record["segmentation"] = mask_api.encode(np.asfortranarray(pixels, np.uint8))
        records.append(record)
    return records
