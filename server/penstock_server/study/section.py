"""Common to all sections of the study file: strict keys, and sizes and times with units."""

from __future__ import annotations

import re
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

_BYTES = {"B": 1, "kB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30, "TiB": 2**40}

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")


def _quantity(value: object, units: dict[str, float] | dict[str, int]) -> object:
    if not isinstance(value, str):
        return value
    match = _QUANTITY.fullmatch(value)
    if match is None or match[2] not in units:
        raise ValueError(f"expected a number followed by one of {', '.join(units)}")
    return float(match[1]) * units[match[2]]


def parse_bytes(value: object) -> object:
    """Convert a size with its unit, such as "8 GiB", to bytes.

    Args:
        value: text from the study file; anything else is returned as it is.

    Returns:
        The number of bytes (int), or `value` where it is no text.

    Raises:
        ValueError: `value` is text, but not a number and a unit.
    """
    number = _quantity(value, _BYTES)
    return int(number) if isinstance(number, float) else number


def parse_seconds(value: object) -> object:
    """Convert a time with its unit, such as "60 s", to seconds.

    Args:
        value: text from the study file; anything else is returned as it is.

    Returns:
        The number of seconds (float), or `value` where it is no text.

    Raises:
        ValueError: `value` is text, but not a number and a unit.
    """
    return _quantity(value, _SECONDS)


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0, lt=2**63)]
"""A size in bytes above 0; in the study file also text such as "8 GiB"."""

Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0, le=1e9)]
"""A time in seconds above 0, at most 30 years, so that it fits every clock; in the study file also text such as "60 s"."""


class Section(BaseModel):
    """A table of the study file: unknown keys are errors, and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number is expected: Python takes them for 1 and 0."""
        if (
            isinstance(value, bool)
            and info.field_name
            and bool not in _types(cls.model_fields[info.field_name].annotation)
        ):
            raise ValueError("expected a value other than true and false")
        return value


def _types(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation such as `int | None` allows."""
    if get_origin(annotation) in (UnionType, Union, Annotated):
        return tuple(kind for part in get_args(annotation) for kind in _types(part))
    return (annotation,)
