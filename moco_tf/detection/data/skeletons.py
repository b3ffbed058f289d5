"""Skeletons of keypoints: left and right counterparts by name, COCO's 17 names and constants."""

import re
from collections.abc import Sequence

import numpy as np

COCO_NAMES = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
# Source: pycocotools, cocoeval.py, Params.setKpParams.
COCO_SIGMAS = (
    np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89], float) / 1000
)
SIDES = {"left": "right", "right": "left"}
SHORT = {"l": "left", "r": "right"}
WORDS = re.compile(r"[A-Z](?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


def words_of(name: str) -> tuple[str, ...]:
    """The words of a keypoint's name, lower case, with the sides spelled out.

    Example:
        >>> words_of("LShoulder"), words_of("Left Eye"), words_of("ankle_r")
        (('left', 'shoulder'), ('left', 'eye'), ('ankle', 'right'))
    """
    words = [word.lower() for word in WORDS.findall(name)]
    words = [part for word in words for part in _split_side(word)]
    return tuple(SHORT.get(word, word) for word in words)


def _split_side(word):
    """Separates a side that is written together with its part: "lefteye" is left and eye."""
    for side in SIDES:
        if word.startswith(side) and word != side:
            return side, word.removeprefix(side)
        if word.endswith(side) and word != side:
            return word.removesuffix(side), side
    return (word,)


def twins(names: Sequence[str], pairs: Sequence[str] = ()) -> np.ndarray:
    """Number of each keypoint's counterpart in the mirrored image: int64 J; its own without one.

    Args:
        names: names of J keypoints, such as "left_eye", "Left Eye", "LEye", "eye_l" or "leye".
        pairs: counterparts that are given, "NAME:NAME"; they come before those by name.

    Raises:
        ValueError: for a pair that is not two different names, or a name in two pairs.
    """
    partner = _given(names, pairs)
    by_words = {words_of(name): number for number, name in enumerate(names)}
    by_text = {name.lower(): number for number, name in enumerate(names)}
    for number, name in enumerate(names):
        words = tuple(SIDES.get(word, word) for word in words_of(name))
        other = by_words.get(words, number)
        if other == number and name[:1].lower() in SHORT:  # lhip and rhip
            first = {"l": "r", "r": "l"}[name[0].lower()]
            other = by_text.get(first + name[1:].lower(), number)
        if number not in partner and other not in partner:
            partner |= {number: other, other: number}
    return np.array([partner.get(number, number) for number in range(len(names))], np.int64)


def _given(names, pairs):
    """Dict from the number of each keypoint of the given pairs to that of its counterpart."""
    names, partner = list(names), {}
    for pair in pairs:
        ends = [end.strip() for end in pair.split(":")]
        if len(ends) != 2 or not set(ends) <= set(names) or ends[0] == ends[1]:
            raise ValueError(
                "`--config.data.keypoint_pairs` must be pairs NAME:NAME of the keypoints "
                f"{', '.join(map(str, names))}. Received: {pair!r}."
            )
        first, second = map(names.index, ends)
        if {first, second} & partner.keys():
            raise ValueError(
                "`--config.data.keypoint_pairs` must have each keypoint once. Received: "
                f"{', '.join(pairs)}."
            )
        partner |= {first: second, second: first}
    return partner


def without_twin(names: Sequence[str], twin: np.ndarray) -> tuple[list[str], list[str]]:
    """Keypoints that stay themselves in mirrored images.

    Args:
        names: names of J keypoints.
        twin: int J, returned by `twins`.

    Returns:
        Names that say a side, and the others.
    """
    alone = [name for number, name in enumerate(names) if twin[number] == number]
    sided = [name for name in alone if set(words_of(name)) & SIDES.keys()]
    return sided, [name for name in alone if name not in sided]


def sigmas_of(names: Sequence[str], given: Sequence[float] | None = None) -> np.ndarray | None:
    """The constants of OKS, COCO's keypoint similarity: float J; None if there are none.

    COCO's own are for its 17 keypoints, in its order and any spelling.

    Args:
        names: names of J keypoints.
        given: constants from the config, J; None for COCO's.

    Raises:
        ValueError: if their number is not J.
    """
    if given is not None:
        if len(given) != len(names):
            raise ValueError(
                f"`--config.data.keypoint_sigmas` must be {len(names)} numbers, one for each of "
                f"{', '.join(map(str, names))}. Received: {len(given)}."
            )
        return np.array(given, float)
    is_coco = [*map(words_of, map(str, names))] == [*map(words_of, COCO_NAMES)]
    return COCO_SIGMAS if is_coco else None
