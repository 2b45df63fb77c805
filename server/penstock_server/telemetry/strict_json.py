"""JSON as its standard has it: without NaN and infinities, which other readers refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any


def strict_json(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return a value as JSON; a number that is not finite becomes null.

    Args:
        value: numbers, texts, lists and dictionaries.
        indent: spaces of each level; None for one line.
        default: turns any other object into one of these.
    """
    try:
        return json.dumps(value, indent=indent, default=default, allow_nan=False)
    except ValueError:  # seldom: only then is the value copied
        return json.dumps(_finite(value), indent=indent, default=default, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
