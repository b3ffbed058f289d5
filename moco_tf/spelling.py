"""What a mistyped name may have meant, for error messages."""

import difflib
from collections.abc import Sequence


def hint(typed: str, names: Sequence[str]) -> str:
    """A question that ends in a space, naming the known name closest to a mistyped one.

    Args:
        typed: name as it was typed.
        names: the known names.

    Returns:
        "" if none of them is close.

    Example:
        >>> hint("evalute", ["train", "evaluate"])
        'Did you mean evaluate? '
        >>> hint("zzz", ["train", "evaluate"])
        ''
    """
    close = difflib.get_close_matches(typed, names, n=1)
    return f"Did you mean {close[0]}? " if close else ""
