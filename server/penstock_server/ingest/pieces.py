"""Checks a piece before it is used: its field is announced, dtype and size are right, and its values are finite."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_client.wire import NUMPY_DTYPES, STATIC_STEP, Header
from penstock_server.study import MAX_STEPS, STATIC_FIELDS, Schema

LARGEST = float(np.finfo(np.float32).max)


class Pieces:
    """Finds the fields of a schema by the ids that pieces carry.

    Args:
        schema: the fields that clients send.

    Attributes:
        first_field: the field whose first element counts for a time step.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._columns = {schema.ids[name]: columns for name, columns in schema.spec.columns().items()}
        self._components = {schema.ids[f.name]: f.components for f in schema.spec.fields}
        self._references = {schema.ids[f.name]: f.reference for f in schema.spec.fields if f.reference}
        self._names = {number: name for name, number in schema.ids.items()}
        self.first_field = min(self._columns)

    def name(self, field_id: int) -> str:
        """Return a field's name for messages; "id 7" where there is no such field."""
        return self._names.get(field_id, f"id {field_id}")

    def columns(self, field_id: int) -> slice:
        """Return the columns of a sample's targets that belong to a field; a static one has none."""
        return self._columns[field_id]

    def size(self, field_id: int) -> int:
        """Return the number of elements of a field.

        Args:
            field_id: as given by ACCEPT.

        Raises:
            Refused: there is no such field.
        """
        if self._schema.static(field_id) is not None:
            return self.components(field_id) * self._schema.spec.fields[0].points
        columns = self._columns.get(field_id)
        if columns is None:
            raise Refused(Reason.UNKNOWN_FIELD, f"field id {field_id}: the study has {', '.join(self._names.values())}")
        return int(columns.stop - columns.start)

    def components(self, field_id: int) -> int:
        """Return the number of elements of a field at each of its points."""
        static = self._schema.static(field_id)
        return self._components[field_id] if static is None else STATIC_FIELDS[static]

    def values(self, header: Header, payload: bytes | memoryview) -> tuple[int, NDArray]:  # type: ignore[type-arg]
        """Check a piece.

        Args:
            header: of the piece.
            payload: its elements.

        Returns:
            The number of elements of the whole field, and the piece's elements, shape (header.count,), in the dtype
            sent; less the field's reference, in float64, where it has one.

        Raises:
            Refused: they do not fit the field, or are not finite.
        """
        expected = self._schema.dtypes.get(header.field)
        static = self._schema.static(header.field)
        if expected is None or (static is not None) != (header.step == STATIC_STEP):
            raise Refused(
                Reason.UNKNOWN_FIELD,
                f"field {self.name(header.field)} at time step {header.step}: announce the field first",
            )
        if header.dtype is not expected:
            raise Refused(
                Reason.DTYPE,
                f"field {self.name(header.field)} sent as {header.dtype.name.lower()}, announced as "
                f"{expected.name.lower()}",
            )
        size = self.size(header.field)
        if (
            len(payload) != header.count * NUMPY_DTYPES[expected].itemsize
            or header.offset + header.count > size
            or not header.count
        ):
            raise Refused(
                Reason.SIZE,
                f"piece of {header.count} elements from {header.offset} in {len(payload)} bytes: field "
                f"{self.name(header.field)} has {size} elements of {NUMPY_DTYPES[expected].itemsize} bytes",
            )
        if not STATIC_STEP <= header.step < MAX_STEPS:
            raise Refused(Reason.MALFORMED, f"time step {header.step}: expected 0 to {MAX_STEPS - 1}")
        sent = values = np.frombuffer(payload, NUMPY_DTYPES[expected])
        if reference := self._references.get(header.field):
            values = sent.astype(np.float64) - reference
        if values.dtype.kind == "f" and not (there := finite(values)).all():
            at = header.offset + int(np.flatnonzero(~there)[0])
            name, value = self.name(header.field), sent[at - header.offset]
            raise not_finite(header.simulation, header.step, name, at, value)
        return size, values


def finite(values: NDArray) -> NDArray[np.bool_]:  # type: ignore[type-arg]
    """Return which of the values are finite in float32, in which samples are stored; 1e300 is not."""
    there: NDArray[np.bool_] = np.isfinite(values) if values.dtype == np.float32 else np.abs(values) <= LARGEST
    return there


def not_finite(simulation: int, step: int, field: str, element: int, value: object) -> Refused:
    """Return the refusal of a value that is not finite in float32.

    Args:
        simulation: its id.
        step: number of the time step.
        field: name of the field.
        element: of the field.
        value: as sent.
    """
    return Refused(
        Reason.NOT_FINITE,
        f"time step {step} of simulation {simulation} has {value} at element {element} of field {field}: the solver has "
        "diverged",
    )


def bad_time(step: int, time: float) -> Refused:
    """Return the refusal of a physical time that no input can have.

    Args:
        step: number of the time step.
        time: as sent.
    """
    return Refused(
        Reason.SCHEMA,
        f"time step {step} has the physical time {time}, expected a finite number: "
        'send(step, time, ...) or set samples.time = "step"',
    )
