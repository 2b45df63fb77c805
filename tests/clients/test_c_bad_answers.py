"""libpenstock ends the stream when the server refuses it, abandons it or sends garbage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted_server import answer, scripted
from stream_program import ABANDONED, REFUSED, run

from penstock_client.payloads import Accept, Alive, Assign
from penstock_client.wire import Header, Kind


def test_an_abandoned_simulation_stops(programs: Path, tmp_path: Path) -> None:
    alive = {Kind.HEARTBEAT: lambda h: [h._replace(kind=Kind.ALIVE).pack(), Alive(h.simulation == 0).pack()]}
    with scripted(tmp_path, alive) as path:
        code, said, _ = run(programs, "1000", "4", "pause_ms=5", PENSTOCK_CONNECT=str(path))
    assert code == ABANDONED
    assert ": the server no longer wants simulation 0, attempt 1: the study is stopping" in said


GARBAGE: list[tuple[str, dict[Kind, Any], str]] = [
    ("no header", {Kind.NEXT: lambda _: [b"hello", b""]}, "header frame of 5 bytes, expected 64"),
    ("version", {Kind.NEXT: lambda h: [h.pack()[:4] + b"\2\0" + h.pack()[6:], b""]}, "wire format version 2"),
    ("three frames", {Kind.NEXT: lambda h: [h.pack(), b"", b""]}, "more than two frames"),
    ("another kind", {Kind.NEXT: answer(Kind.FINISHED)}, "FINISHED in answer to NEXT, expected ASSIGN"),
    ("cut ASSIGN", {Kind.NEXT: answer(Kind.ASSIGN, b"\0\1\0\0\0")}, "payload announces 1 items"),
    ("other parameters", {Kind.NEXT: answer(Kind.ASSIGN, Assign((), False).pack())}, "ASSIGN has 0 parameters"),
    ("cut WELCOME", {Kind.HELLO: answer(Kind.WELCOME, b"\0" * 30)}, "WELCOME cannot be read"),
    ("no rank", {Kind.HELLO: answer(Kind.WELCOME, b"\0" * 41)}, "it names no trainer rank"),
    (
        "too few ids",
        {Kind.ANNOUNCE: answer(Kind.ACCEPT, Accept((), ()).pack())},
        "ACCEPT has 0 fields, announced were 1",
    ),
    ("kind of the other side", {Kind.BEGIN: answer(Kind.ASSIGN)}, "ASSIGN on a data connection"),
    ("cut STREAMED", {Kind.END: answer(Kind.STREAMED, b"\0" * 23)}, "ends 1 bytes too early"),
    ("cut ALIVE", {Kind.HEARTBEAT: answer(Kind.ALIVE)}, "ends 1 bytes too early"),
]


@pytest.mark.parametrize(("script", "problem"), [g[1:] for g in GARBAGE], ids=[g[0] for g in GARBAGE])
def test_garbage_from_the_server_is_an_error(
    programs: Path, tmp_path: Path, script: dict[Kind, Any], problem: str
) -> None:
    with scripted(tmp_path, script, timeout_ms=10_000) as path:
        code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert (code, problem in said) == (3, True), said
    assert seconds < 5


def test_refused_pieces_fail_the_stream_at_its_end(programs: Path, tmp_path: Path) -> None:
    def end(header: Header) -> list[bytes]:
        return [header._replace(kind=Kind.STREAMED).pack(), (1).to_bytes(8, "little") + bytes(8) + b"\2" + bytes(7)]

    with scripted(tmp_path, {Kind.END: end}) as path:
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == REFUSED
    assert "refused 2 pieces of this simulation; its log says why" in said
