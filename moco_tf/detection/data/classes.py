"""Matching of a test set's classes and keypoints to those of the training set, by name."""

import dataclasses

import numpy as np

from moco_tf.detection.data.annotations import Annotations


def match_classes(test: Annotations, train: Annotations) -> Annotations:
    """The test set with the classes of the training set, in its order.

    A test set may lack classes. Its own ids stay; a class that it lacks gets the training set's id,
    or a free one. Classes of the test set alone are left out if nothing is of them.

    Args:
        test: `Annotations`, opened for testing.
        train: `Annotations`, opened for training.

    Raises:
        ValueError: if the test set has objects of other classes, or other keypoints.
    """
    if list(test.keypoint_names) != list(train.keypoint_names):
        raise ValueError(
            "Training and test images must have the same keypoints, in the same order. Received: "
            f"{', '.join(train.keypoint_names)} and {', '.join(test.keypoint_names)}."
        )
    if test.classes == train.classes:
        return test
    used = set(np.unique(test.labels).tolist())
    other = [n for i, n in enumerate(test.classes) if i in used and n not in train.classes]
    if other:
        raise ValueError(
            "Test images must have no other classes than the training images. Received: objects "
            f"of {', '.join(other[:5])} ({len(other)} classes), where the training images have "
            f"{', '.join(train.classes[:10])} ({len(train.classes)} classes). Rename or remove "
            "them, or train on them."
        )
    number_of = {name: number for number, name in enumerate(train.classes)}
    new_numbers = np.array([number_of.get(name, -1) for name in test.classes], np.int32)
    ids = dict(zip(test.classes, test.category_ids.tolist(), strict=True))
    taken = {ids[name] for name in train.classes if name in ids}
    for name, number in zip(train.classes, train.category_ids.tolist(), strict=True):
        if name not in ids:
            free = next(n for n in (number, *range(len(taken) + 1)) if n not in taken)
            taken.add(free)
            ids[name] = free
    return dataclasses.replace(
        test,
        classes=train.classes,
        category_ids=np.array([ids[name] for name in train.classes], np.int64),
        labels=new_numbers[test.labels],
    )
