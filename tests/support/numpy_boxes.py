"""Random boxes, and plain NumPy's IoU, matching and NMS, box by box."""

import numpy as np

CROWD = -2  # the label of a crowd


def random_boxes(rng, *shape, side=100.0):
    """Boxes within [0, 1.3 * side): float64 shape x 4."""
    corner = rng.uniform(0, 0.8 * side, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(1, side / 2, (*shape, 2))], -1)


def float32(x):
    return np.asarray(x, np.float32)


def numpy_overlap(a, b):
    """The area of the intersection of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return np.prod(np.maximum(sides, 0))


def numpy_area(a):
    return (a[2] - a[0]) * (a[3] - a[1])


def numpy_iou(a, b):
    common = numpy_overlap(a, b)
    return common / (numpy_area(a) + numpy_area(b) - common)


def numpy_match(a, truth, label, low, high, low_quality):
    """What `matching.match` must give for one image: index, positive, negative."""
    table = [[numpy_iou(x, t) if c >= 0 else 0 for t, c in zip(truth, label)] for x in a]
    table = np.array(table)
    positive = table.max(1) >= high
    if low_quality:
        for instance in np.flatnonzero(label >= 0):
            highest = table[:, instance].max()
            if highest > 0:
                positive |= table[:, instance] == highest
    crowds = truth[label == CROWD]
    crowded = [any(numpy_overlap(x, c) / numpy_area(x) > 0.5 for c in crowds) for x in a]
    return table.argmax(1), positive, (table.max(1) < low) & ~positive & ~np.array(crowded)


def numpy_nms(a, score, group, threshold):
    """The indices that NMS keeps, best first."""
    kept = []
    for i in np.argsort(-score):
        if np.isfinite(score[i]) and all(
            group[i] != group[j] or numpy_iou(a[i], a[j]) <= threshold for j in kept
        ):
            kept.append(i)
    return kept
