"""Numbers and times as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Write seconds as hours:minutes:seconds, 0:01:05."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with a few significant digits; "-" where there is none yet."""
    return "-" if value is None else f"{value:.{digits}g}"
