"""The part of a field that one MPI rank sends."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock_client.errors import FieldError

MAX_DIMENSIONS = 8
ARGUMENTS = ("self", "step", "time", "offset", "indices")  # of Simulation.announce, send and send_static


@dataclass(frozen=True)
class Field:
    """A field as a solver announces it.

    Attributes:
        shape: spatial shape of the whole field over all MPI ranks, such as (ny, nx) or (n_cells,); a list or one number
            is accepted too.
        components: components per point: 1 scalar, 3 vector, 6 symmetric tensor, 9 tensor; the last axis of the arrays.
        dtype: float32, float64, int32 or int64, as a name or as a type of numpy.
        static: True for mesh geometry, which is sent once per study.

    Raises:
        FieldError: shape or components are not whole numbers of at least 1, or dtype is not a type of numpy.
    """

    shape: tuple[int, ...]
    components: int = 1
    dtype: str = "float64"
    static: bool = False

    def __post_init__(self) -> None:
        given: Any = self.shape
        try:
            shape = tuple(map(operator.index, given if isinstance(given, Iterable) else (given,)))
            components = operator.index(self.components)
        except TypeError:
            shape, components = (), 0
        if not 1 <= len(shape) <= MAX_DIMENSIONS or min(*shape, components) < 1:
            raise FieldError(
                f"Field(shape={given!r}, components={self.components!r}): expected 1 to {MAX_DIMENSIONS} dimensions and "
                "whole numbers of at least 1, such as shape=(ny, nx), components=3"
            )
        try:
            dtype = np.dtype(self.dtype).name
        except TypeError:
            raise FieldError(f"Field(dtype={self.dtype!r}): expected float32, float64, int32 or int64") from None
        for name, value in (("shape", shape), ("components", components), ("dtype", dtype)):
            object.__setattr__(self, name, value)

    @property
    def points(self) -> int:
        """Number of points of the whole field."""
        return math.prod(self.shape)


def check_fields(fields: Mapping[str, Field]) -> None:
    """Check the names and types of announced fields.

    Args:
        fields: the fields, by name.

    Raises:
        FieldError: something is not a `Field`, or has the name of an argument of `Simulation.send`.
    """
    if not isinstance(fields, Mapping):
        raise FieldError(f'fields = {fields!r}: expected a dictionary, such as {{"u": Field(shape=(8,))}}')
    for name, field in fields.items():
        if not isinstance(name, str) or not name or name in ARGUMENTS:
            raise FieldError(
                f"field {name!r}: expected a name other than {', '.join(ARGUMENTS)}, which are arguments of "
                "Simulation.send; rename it in the solver and in the study file"
            )
        if not isinstance(field, Field):
            raise FieldError(f"field {name!r} is {field!r}: expected a Field, such as Field(shape=(8,), components=1)")


def checked_indices(fields: Mapping[str, Field], indices: ArrayLike) -> NDArray[np.int32] | NDArray[np.int64]:
    """Check a list of points and convert it to the type that is sent.

    Args:
        fields: the announced fields, by name.
        indices: points that this rank holds, (n,).

    Returns:
        The points, (n,), as int32 if that suffices for every field, else as int64.

    Raises:
        FieldError: the list is not one-dimensional, not of integers, or contains a point that a field does not have.
    """
    array = np.asarray(indices)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise FieldError(f"indices of dtype {array.dtype} and shape {array.shape}: expected a list of whole numbers")
    for name, field in fields.items():
        wrong = array[(array < 0) | (array >= field.points)]
        if wrong.size:
            raise FieldError(f"indices contain {wrong[0]}: field {name!r} has the points 0 to {field.points - 1}")
    small = all(field.points <= np.iinfo(np.int32).max for field in fields.values())
    return array.astype("<i4") if small else array.astype("<i8")


def first_element(
    name: str,
    field: Field,
    array: NDArray[Any],
    offset: int | None,
    indices: NDArray[Any] | None,
) -> int:
    """Check the shape of an array and find where it begins.

    Args:
        name: name of the field.
        field: the field as announced.
        array: this rank's values.
        offset: first point of the array in the whole field; None: the array is the whole field, or follows `indices`.
        indices: points that this rank has listed, (n,), or None.

    Returns:
        Number of the array's first element, components included, in the whole field, or in the rank's list of points.

    Raises:
        FieldError: the array does not have the announced shape, or does not lie within the field.
    """
    whole = (*field.shape, field.components)
    if offset is None and indices is None:
        if array.shape != whole and not (field.components == 1 and array.shape == field.shape):
            raise FieldError(
                f"field {name!r} has shape {array.shape}, announced was {field.shape} x {field.components}: send all "
                "of it, or say with offset= or announce(indices=...) which part this is"
            )
        return 0
    if field.components > 1 and array.shape[-1:] != (field.components,):
        raise FieldError(
            f"field {name!r} has shape {array.shape}: expected {field.components} components as its last dimension"
        )
    points = array.size // field.components
    if indices is not None:
        if offset is not None:
            raise FieldError(f"offset = {offset}: the indices that were announced say already where the piece goes")
        if points != indices.size:
            raise FieldError(f"field {name!r} has {points} points, announced were the indices of {indices.size}")
        return 0
    assert offset is not None
    if offset < 0 or offset + points > field.points:
        raise FieldError(f"field {name!r}: {points} points from offset {offset}, the whole field has {field.points}")
    return offset * field.components
