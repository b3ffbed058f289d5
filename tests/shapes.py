"""Pictures of coloured shapes on noise with their boxes, masks and keypoints, and a simple AP."""

import numpy as np

CLASSES = ("disc", "rectangle", "triangle")
SLOTS, MASK = 4, 112


def inside(kind, v, u):
    """Where a shape that fills [0, 1] x [0, 1] is, at rows v and columns u."""
    square = (v >= 0) & (v < 1) & (u >= 0) & (u < 1)
    if kind == 0:
        return (v - 0.5) ** 2 + (u - 0.5) ** 2 < 0.25
    return square if kind == 1 else square & (np.abs(u - 0.5) < v / 2)


def draw(seed, side=128):
    """One example: a dict as a batch of the detector has it, without its rows.

    The two keypoints of a shape are its centre and the middle of its lower border.
    """
    rng = np.random.default_rng(seed)
    image = rng.uniform(60, 196, (side, side, 3))
    pixel = np.arange(side) + 0.5
    fine = (np.arange(MASK) + 0.5) / MASK
    boxes = np.zeros((SLOTS, 4), np.float32)
    label = np.full(SLOTS, -1, np.int32)
    mask = np.zeros((SLOTS, MASK, MASK), np.uint8)
    keypoints = np.zeros((SLOTS, 2, 3), np.float32)
    taken = np.zeros((side, side), bool)
    for slot in range(rng.integers(1, 4)):
        height, width = rng.uniform(0.2, 0.45, 2) * side
        y, x = rng.uniform(1, [side - 1 - height, side - 1 - width])
        kind = rng.integers(3)
        where = inside(kind, ((pixel - y) / height)[:, None], (pixel - x) / width)
        if (where & taken).any():
            continue
        taken |= where
        colour = rng.permutation([230, 30, rng.uniform(0, 255)])
        image[where] = colour + rng.normal(0, 10, (where.sum(), 3))
        boxes[slot], label[slot] = [x, y, x + width, y + height], kind
        mask[slot] = inside(kind, fine[:, None], fine)
        keypoints[slot] = [
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


def box_canvas(box, _):
    return on_canvas(box, np.ones((1, 1)))


def average_precision(truth, found, canvas):
    """AP at an IoU of .5 of all classes together, of pixels: the area under precision and recall.

    Args:
        truth: batch; found: predictions of its images, arrays.
        canvas: `on_canvas` for masks, `box_canvas` for boxes.
    """
    hits, total = [], 0
    empty = np.zeros((*found["label"].shape, 1, 1))
    for n in range(len(truth["label"])):
        slots = np.flatnonzero(truth["label"][n] >= 0)
        total += len(slots)
        real = {s: canvas(truth["boxes"][n, s], truth["mask"][n, s]) for s in slots}
        for d in np.flatnonzero(found["label"][n] >= 0):
            mine = canvas(found["boxes"][n, d], found.get("mask", empty)[n, d])
            same = [s for s in real if truth["label"][n, s] == found["label"][n, d]]
            overlap = {s: (real[s] & mine).sum() / (real[s] | mine).sum() for s in same}
            best = max(overlap, key=overlap.get, default=None)
            hit = best is not None and overlap[best] >= 0.5
            if hit:
                del real[best]
            hits.append((found["score"][n, d], hit))
    hits = np.array([hit for _, hit in sorted(hits, key=lambda pair: -pair[0])], float)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return np.sum(precision * hits) / total
