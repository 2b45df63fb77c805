"""The schema: the fields that all clients of a study send. The first announcement fixes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock_client.errors import Refused
from penstock_client.payloads import FieldAnnouncement
from penstock_client.reasons import Reason
from penstock_client.wire import MAX_PIECE_BYTES, NUMPY_DTYPES, Dtype
from penstock_server.study.data import FieldSection, SamplesSection
from penstock_server.study.samples import FieldSpec, SampleSpec

MAX_FIELD_ELEMENTS = 2**31
"""Largest number of elements of one field in one time step; larger fields are refused before anything is allocated."""

STATIC_FIELDS = {"cell_centres": 3, "cell_volumes": 1}
"""Mesh geometry that a client may send once: name to number of components."""

_STATIC_ID = 1 << 16  # ids of static fields start here, those of moving fields at 0


@dataclass(frozen=True)
class Schema:
    """The fields that every client of a study sends, fixed by the first announcement.

    Attributes:
        spec: layout of a sample.
        ids: field name (moving and static) to field id.
        dtypes: field id to the dtype of its pieces.
        seeds: number of parameters that clients receive after those of the samples, and that models do not see.
    """

    spec: SampleSpec
    ids: dict[str, int]
    dtypes: dict[int, Dtype]
    seeds: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the schema as plain data, for a checkpoint."""
        return {
            "parameters": list(self.spec.parameters),
            "fields": [[f.name, f.components, list(f.shape), f.reference] for f in self.spec.fields],
            "window": self.spec.window,
            "bundle": self.spec.bundle,
            "seeds": self.seeds,
            "ids": self.ids,
            "dtypes": {str(number): int(dtype) for number, dtype in self.dtypes.items()},
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Schema:
        """Restore a schema from what `state_dict` returned."""
        # Checkpoints of earlier versions have no reference.
        fields = tuple(FieldSpec(name, n, tuple(shape), *rest) for name, n, shape, *rest in state["fields"])
        spec = SampleSpec(tuple(state["parameters"]), fields, state["window"], state["bundle"])
        return cls(spec, dict(state["ids"]), {int(k): Dtype(v) for k, v in state["dtypes"].items()}, state["seeds"])

    def static(self, field: int) -> str | None:
        """Return the name of the static field with this id, None for any other id."""
        names = list(STATIC_FIELDS)
        return names[field - _STATIC_ID] if 0 <= field - _STATIC_ID < len(names) else None


def agree(
    announced: Sequence[FieldAnnouncement],
    wanted: Mapping[str, FieldSection],
    parameters: tuple[str, ...],
    samples: SamplesSection,
    schema: Schema | None,
    *,
    seeds: int = 0,
    max_message: int = 2**63,
) -> Schema:
    """Check a client's announcement against the study file and against the first announcement.

    A client that sends plain arrays announces one component and the whole shape of the array. If the study file gives
    the field's number of components, the last dimension is taken as the components. If it gives the shape as well, a
    single dimension with all values, or with all points, is accepted.

    Args:
        announced: fields that the client announces.
        wanted: field name to its section of the study file.
        parameters: parameters of a simulation, the last `seeds` of them for the solver alone.
        samples: [samples] of the study file.
        schema: schema that the first announcement fixed; None for the first announcement.
        seeds: number of parameters that are seeds.
        max_message: bytes that the server accepts in one message; clients send at most MAX_PIECE_BYTES, and a smaller
            field must fit.

    Returns:
        The schema: `schema`, or a new one where it is None.

    Raises:
        Refused: a field is missing or unknown, or has another size, number of components or dtype.
    """
    moving = {f.name: f for f in announced if not f.static}
    for f in announced:
        known = STATIC_FIELDS if f.static else wanted
        if f.name not in known:
            kind = "static field" if f.static else "field"
            raise Refused(Reason.UNKNOWN_FIELD, f"{kind} {f.name!r}: the study has {', '.join(known)}")
        if f.dtype is Dtype.NONE or f.components < 1 or any(n < 1 for n in f.shape):
            raise Refused(Reason.SCHEMA, f"field {f.name!r} announced as {f.dtype.name} {f.shape} x {f.components}")
    names = [f.name for f in announced]
    if len(set(names)) < len(names):
        raise Refused(Reason.SCHEMA, "a field was announced twice")
    missing = [name for name in wanted if name not in moving]
    if missing:
        raise Refused(
            Reason.SCHEMA,
            f"the study's field {', '.join(missing)} was not announced; send it, or take it out of [fields]",
        )
    specs = tuple(_field_spec(moving[name], section) for name, section in wanted.items())
    for spec in specs:
        if spec.size > MAX_FIELD_ELEMENTS:
            raise Refused(
                Reason.SCHEMA, f"field {spec.name!r} of {spec.size} elements, at most {MAX_FIELD_ELEMENTS} are allowed"
            )
        size = spec.size * NUMPY_DTYPES[moving[spec.name].dtype].itemsize
        if min(size, MAX_PIECE_BYTES) > max_message:
            raise Refused(
                Reason.SCHEMA,
                f"field {spec.name!r} of {size} bytes, the server takes at most {max_message} in one message: raise "
                f"[server] max_message; {MAX_PIECE_BYTES} suffice for a field of any size",
            )
    if schema is None:
        ids = {name: i for i, name in enumerate(wanted)} | {
            name: _STATIC_ID + i for i, name in enumerate(STATIC_FIELDS)
        }
        dtypes = {ids[name]: moving[name].dtype for name in wanted}
        dtypes |= {_STATIC_ID + i: Dtype.FLOAT64 for i in range(len(STATIC_FIELDS))}
        seen = parameters[: len(parameters) - seeds]
        return Schema(SampleSpec(seen, specs, samples.window, samples.bundle), ids, dtypes, seeds)
    for spec, first in zip(specs, schema.spec.fields, strict=True):
        dtype, agreed = moving[spec.name].dtype, schema.dtypes[schema.ids[spec.name]]
        if spec != first or dtype is not agreed:
            raise Refused(
                Reason.SCHEMA,
                f"field {spec.name!r} announced as {dtype.name.lower()} {spec.shape} x {spec.components}, the study's "
                f"first client announced {agreed.name.lower()} {first.shape} x {first.components}: "
                "all simulations of a study share one mesh",
            )
    return schema


def _field_spec(f: FieldAnnouncement, section: FieldSection) -> FieldSpec:
    shape, components = f.shape, f.components
    if components == 1 and section.components not in (None, 1) and shape and shape[-1] == section.components:
        shape, components = shape[:-1], shape[-1]
    if (
        section.shape is not None
        and components == 1
        and shape == (math.prod(section.shape) * (section.components or 1),)
    ):
        # The client knows only the number of values; the study file gives their layout.
        shape, components = section.shape, section.components or 1
    elif section.shape is not None and shape == (math.prod(section.shape),):
        shape = section.shape  # the client knows the components of a point, and only the number of points
    if section.components not in (None, components):
        raise Refused(
            Reason.SCHEMA, f"field {f.name!r} has {components} components, the study file says {section.components}"
        )
    if section.shape not in (None, shape):
        raise Refused(
            Reason.SCHEMA,
            f"field {f.name!r} has shape {shape}, the study file says {section.shape}: {_remedy(shape, section)}",
        )
    return FieldSpec(f.name, components, shape, section.reference)


def _remedy(shape: tuple[int, ...], section: FieldSection) -> str:
    """Return what to do about a shape that is not the study file's."""
    assert section.shape is not None
    points = math.prod(section.shape)
    if section.components is None and len(shape) > 1 and math.prod(shape[:-1]) == points:
        return f"if the last {shape[-1]} are components, set components = {shape[-1]} as well"
    if math.prod(shape) == points * (section.components or 1):
        return (
            "set the shape that the solver announces, or announce one dimension, which is given the study file's shape"
        )
    return f"{math.prod(shape)} points against {points}; set the shape that the solver announces"
