"""Check of COCO's run-length encodings (RLE): their counts must add up to their size."""

import numpy as np

FIRST, LAST = 48, 111  # codes of the characters of compressed counts: 6 bits each


def check(rle: dict) -> None:
    """Checks a mask before pycocotools reads it, which may crash or never return otherwise.

    Args:
        rle: dict of size, [height, width], and counts: numbers, or COCO's compressed text or bytes.

    Raises:
        ValueError: if the size is not two whole numbers, or the counts do not add up to it.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(map(_is_count, size)):
        raise ValueError(f"a size that is not [height, width]: {size!r}")
    pixels = int(size[0]) * int(size[1])
    if isinstance(counts, (str, bytes)):
        total = total_of_text(counts)
    elif isinstance(counts, list) and all(map(_is_count, counts)):
        total = sum(counts)
    else:
        raise ValueError(f"counts that are neither whole numbers nor COCO's text: {counts!r:.40}")
    if total != pixels:
        raise ValueError(f"counts that add up to {total}, not to the {pixels} px of size {size}")


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def total_of_text(counts: str | bytes) -> int:
    """Sum of the counts of COCO's compressed form.

    A count is written in groups of 5 bits, the lowest first; bit 6 says that another group follows,
    and bit 5 of the last one is the sign. From the fourth on, a count is the difference from the
    one two places before it.

    Args:
        counts: compressed counts.

    Raises:
        ValueError: for other characters, a cut text, or a negative count.

    Source: cocoapi/common/maskApi.c, rleFrString.
    """
    text = counts.encode("latin-1", "replace") if isinstance(counts, str) else counts
    codes = np.frombuffer(text, np.uint8).astype(np.int64)
    if not len(codes) or codes.min() < FIRST or codes.max() > LAST:
        raise ValueError(f"counts that are not COCO's compressed text: {counts!r:.40}")
    groups = codes - FIRST
    is_last = (groups & 32) == 0
    if not is_last[-1]:
        raise ValueError("counts whose text ends within a number")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        raise ValueError("counts with a number of more than 35 bits")
    values = np.add.reduceat((groups & 31) << (5 * place), starts)
    is_negative = (groups[ends] & 16) > 0
    values -= is_negative * (1 << (5 * (place[ends] + 1)))
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0:
        raise ValueError("counts of which one is negative")
    return int(values.sum())
