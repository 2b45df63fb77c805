"""Suggestions for misspelt names, for the end of an error message."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def close_names(name: str, valid: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Find the valid names that are spelt most like a name, whatever their case.

    Args:
        name: the name that was given.
        valid: the names to choose from.
        count: the largest number of names to return.
        cutoff: the least similarity of a name, from 0 (any name) to 1 (equal but for the case).

    Returns:
        The most similar name first; empty if none is similar enough.
    """
    by_lower: dict[str, list[str]] = {}
    for candidate in dict.fromkeys(valid):
        by_lower.setdefault(candidate.lower(), []).append(candidate)
    matches = get_close_matches(name.lower(), by_lower, count, cutoff)
    return [candidate for match in matches for candidate in by_lower[match]][:count]


def did_you_mean(name: str, valid: Iterable[str], otherwise: str = "") -> str:
    """Name the valid name closest to a misspelt one.

    Args:
        name: the name that was given.
        valid: the names to choose from.
        otherwise: the text to return when no valid name is close.

    Returns:
        "did you mean 'x'?", or `otherwise`.
    """
    close = close_names(name, valid)
    return f"did you mean {close[0]!r}?" if close else otherwise


def nearest(name: str, valid: Iterable[str], *, shown: int = 8) -> str:
    """Name the valid name closest to a misspelt one, or else list the valid names.

    Args:
        name: the name that was given.
        valid: the names to choose from.
        shown: the largest number of names to list.

    Returns:
        "did you mean 'x'?", or "expected one of ...".
    """
    names = list(dict.fromkeys(valid))
    more = ", ..." if len(names) > shown else ""
    return did_you_mean(name, names, f"expected one of {', '.join(names[:shown])}{more}")
