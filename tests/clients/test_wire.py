"""The Python codec against the shared vectors of docs/wire-format.md, and against bytes that nobody meant to send."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_client import payloads, stream_payloads, wire
from penstock_client.errors import WireError
from penstock_client.reasons import Reason
from penstock_client.wire import Dtype, Header, Kind

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "wire" / "vectors.json").read_text())


class Payload(Protocol):
    def pack(self) -> bytes: ...

    @classmethod
    def unpack(cls, frame: bytes) -> Payload: ...


PAYLOADS: dict[Kind, type[Payload]] = {
    Kind.HELLO: payloads.Hello,
    Kind.WELCOME: payloads.Welcome,
    Kind.ASSIGN: payloads.Assign,
    Kind.ANNOUNCE: payloads.Announce,
    Kind.ACCEPT: payloads.Accept,
    Kind.BEGIN: stream_payloads.Begin,
    Kind.STREAMED: stream_payloads.Streamed,
    Kind.SHARE: stream_payloads.Share,
    Kind.FINISH: payloads.Finish,
    Kind.ALIVE: payloads.Alive,
    Kind.REFUSE: payloads.Refuse,
}


def header_of(vector: dict[str, Any]) -> Header:
    fields = dict(vector["header"])
    fields["kind"] = Kind[fields["kind"]]
    fields["dtype"] = Dtype[fields["dtype"].upper()]
    fields["time"] = float(fields["time"])
    return Header(**fields)


def payload_of(kind: Kind, values: dict[str, Any]) -> Payload:
    """The payload object that a vector's values stand for."""
    v: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if kind is Kind.HELLO:
        v["client"] = bytes.fromhex(v["client"])
    elif kind is Kind.SHARE:
        v["boot"], v["token"] = bytes.fromhex(v["boot"]), bytes.fromhex(v["token"])
    elif kind is Kind.ANNOUNCE:
        v["fields"] = tuple(
            payloads.FieldAnnouncement(**{**f, "dtype": Dtype[f["dtype"].upper()], "shape": tuple(f["shape"])})
            for f in v["fields"]
        )
    elif kind is Kind.FINISH:
        v["outcome"] = payloads.Outcome(v["outcome"])
    elif kind is Kind.REFUSE:
        v["reason"] = Reason(v["reason"])
    return PAYLOADS[kind](**v)


def named(vectors: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(v, id=v["name"].replace(" ", "-")) for v in vectors]


@pytest.mark.parametrize("vector", named(VECTORS["messages"]))
def test_headers_are_exactly_these_bytes(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["header_hex"])
    assert header_of(vector).pack() == raw
    # repr, because NaN is not equal to itself
    assert repr(wire.unpack(raw)) == repr(header_of(vector))
    assert wire.unpack(memoryview(raw)).pack() == raw


@pytest.mark.parametrize("vector", named(VECTORS["references"]))
def test_references_are_exactly_these_bytes(vector: dict[str, Any]) -> None:
    raw, reference = bytes.fromhex(vector["header_hex"]), stream_payloads.Reference(**vector["reference"])
    assert header_of(vector).pack(reference=True) == raw
    assert wire.take_reference_bit(raw) == (header_of(vector).pack(), True)
    assert wire.take_reference_bit(header_of(vector).pack()) == (header_of(vector).pack(), False)
    assert reference.pack().hex() == vector["payload_hex"]
    assert stream_payloads.Reference.unpack(reference.pack()) == reference
    with pytest.raises(WireError):  # where a reference is not expected, it is no message
        wire.unpack(raw)


@pytest.mark.parametrize("vector", named([v for v in VECTORS["messages"] if "payload" in v]))
def test_payloads_are_exactly_these_bytes(vector: dict[str, Any]) -> None:
    kind = Kind[vector["header"]["kind"]]
    raw = bytes.fromhex(vector["payload_hex"])
    expected = payload_of(kind, vector["payload"])
    assert expected.pack() == raw
    assert PAYLOADS[kind].unpack(raw) == expected


def test_every_kind_has_a_vector() -> None:
    assert {v["header"]["kind"] for v in VECTORS["messages"]} == {kind.name for kind in Kind}


@pytest.mark.parametrize("vector", named(VECTORS["invalid_headers"]))
def test_invalid_headers_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        wire.unpack(bytes.fromhex(vector["hex"]))
    assert isinstance(caught.value, wire.VersionMismatch) == (vector["error"] == "version")


@pytest.mark.parametrize("vector", named(VECTORS["invalid_payloads"]))
def test_invalid_payloads_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        PAYLOADS[Kind[vector["kind"]]].unpack(bytes.fromhex(vector["hex"]))


u8, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
i64 = st.integers(-(2**63), 2**63 - 1)
doubles = st.floats(allow_nan=False)
sixteen = st.binary(min_size=16, max_size=16)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
headers = st.builds(
    Header, st.sampled_from(Kind), u32, i64, u32, i64, u32, u32, u64, u64, st.sampled_from(Dtype), st.floats()
)


def tuples(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=5).map(tuple)


announcements = st.builds(
    payloads.FieldAnnouncement,
    texts,
    st.sampled_from(Dtype),
    u32,
    st.lists(u64, max_size=8).map(tuple),
    st.booleans(),
)
accepts = tuples(st.tuples(u32, st.booleans())).map(
    lambda pairs: payloads.Accept(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))
)
bodies: st.SearchStrategy[Payload] = st.one_of(
    st.builds(payloads.Hello, sixteen, u32, texts),
    st.builds(
        payloads.Welcome, u32, u32, u64, u32, u32, st.booleans(), tuples(texts), tuples(texts), tuples(texts), texts
    ),
    st.builds(payloads.Assign, tuples(doubles), st.booleans()),
    st.builds(payloads.Announce, tuples(announcements)),
    accepts,
    st.builds(stream_payloads.Begin, u32, tuples(doubles)),
    st.builds(stream_payloads.Streamed, u64, u64, u64),
    st.builds(stream_payloads.Share, sixteen, u32, u32, u64, sixteen),
    st.builds(stream_payloads.Reference, u64, u64),
    st.builds(payloads.Finish, st.sampled_from(payloads.Outcome), u32, u64, texts, doubles),
    st.builds(payloads.Alive, st.booleans()),
    st.builds(payloads.Refuse, st.sampled_from(Reason), texts),
)


@given(headers)
def test_headers_come_back_as_they_were(header: Header) -> None:
    back = wire.unpack(header.pack())
    assert len(header.pack()) == wire.HEADER_BYTES
    assert back[:-1] == header[:-1]
    assert back.time == header.time or (math.isnan(back.time) and math.isnan(header.time))


@given(bodies)
def test_payloads_come_back_as_they_were(body: Payload) -> None:
    assert type(body).unpack(body.pack()) == body


@given(bodies, st.data())
def test_a_cut_or_lengthened_payload_is_refused(body: Payload, data: st.DataObject) -> None:
    raw = body.pack()
    with pytest.raises(WireError):
        type(body).unpack(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(WireError):
        type(body).unpack(raw + data.draw(st.binary(min_size=1, max_size=9)))


@given(st.binary(max_size=80))
def test_garbage_headers_raise_wire_errors_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(WireError):
        wire.unpack(raw)


@given(headers, st.integers(0, wire.HEADER_BYTES - 1), u8)
def test_a_header_with_one_other_byte_is_read_or_refused(header: Header, at: int, byte: int) -> None:
    raw = bytearray(header.pack())
    raw[at] = byte
    try:
        back = wire.unpack(bytes(raw))
    except WireError:
        assert at < 8  # only magic, version, kind and dtype have values that mean nothing
    else:
        assert back.pack() == raw


@pytest.mark.parametrize("kind", PAYLOADS)
@given(raw=st.binary(max_size=120))
def test_garbage_payloads_raise_wire_errors_and_nothing_else(kind: Kind, raw: bytes) -> None:
    try:
        payload = PAYLOADS[kind].unpack(raw)
    except WireError:
        return
    assert len(payload.pack()) == len(raw)
