"""A suggestion for a misspelt name, for the end of an error message."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, valid: Iterable[str], *, shown: int = 8) -> str:
    """Suggest a valid name.

    Args:
        name: the misspelt name.
        valid: all valid names.
        shown: how many valid names are listed where none is close.

    Returns:
        "did you mean 'x'?" where a valid name is close to `name`, otherwise "expected one of ...".
    """
    names = list(dict.fromkeys(valid))
    by_folded = {n.lower(): n for n in names}
    close = get_close_matches(name.lower(), by_folded, n=1, cutoff=0.6)
    if close:
        return f"did you mean {by_folded[close[0]]!r}?"
    more = ", ..." if len(names) > shown else ""
    return f"expected one of {', '.join(names[:shown])}{more}"
