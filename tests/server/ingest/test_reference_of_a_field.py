"""The reference of a field is subtracted in float64, before a value is stored as float32."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_client.errors import Refused
from penstock_client.payloads import FieldAnnouncement
from penstock_client.wire import NUMPY_DTYPES, Dtype, Header, Kind
from penstock_server.ingest.pieces import Pieces
from penstock_server.study import FieldSection, SamplesSection, Schema, agree


def schema(dtype: Dtype, reference: float) -> Schema:
    announced = [
        FieldAnnouncement("p", dtype, 1, (3,)),
        FieldAnnouncement("cell_volumes", Dtype.FLOAT64, 1, (3,), True),
    ]
    return agree(announced, {"p": FieldSection(reference=reference)}, ("a",), SamplesSection(), None)


def taken(dtype: Dtype, reference: float, values: list[float]) -> np.ndarray:
    sent = np.array(values, NUMPY_DTYPES[dtype])
    return Pieces(schema(dtype, reference)).values(Header(Kind.PIECE, count=3, dtype=dtype), sent.tobytes())[1]


def test_the_variation_is_kept() -> None:
    difference = taken(Dtype.FLOAT64, 101325.0, [101325.01, 101325.0, 101324.99]).astype(np.float32)
    np.testing.assert_allclose(difference, [0.01, 0.0, -0.01], atol=1e-8)


def test_whole_numbers_have_one_too() -> None:
    assert taken(Dtype.INT64, 10.0**12, [10**12 + 1, 10**12, 10**12 - 3]).tolist() == [1.0, 0.0, -3.0]


def test_a_field_without_one_is_as_sent() -> None:
    values = taken(Dtype.INT32, 0.0, [1, 2, 3])
    assert values.dtype == np.int32


def test_what_counts_as_finite_is_the_difference() -> None:
    assert taken(Dtype.FLOAT64, 1e40, [1e40, 1e40, 1e40]).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(Refused, match=r"has 1e\+40 at element 1 of field p"):
        taken(Dtype.FLOAT64, 1.0, [1.0, 1e40, 1.0])


def test_a_checkpoint_keeps_it_and_one_of_an_earlier_version_has_none() -> None:
    there = schema(Dtype.FLOAT64, 5.0)
    state = there.state_dict()
    assert Schema.from_state_dict(state) == there
    state["fields"] = [field[:3] for field in state["fields"]]
    assert Schema.from_state_dict(state).spec.fields[0].reference == 0.0
