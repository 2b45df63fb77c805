"""libpenstock does not take an answer that belongs to an earlier simulation of the same handle for the present one's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted_server import answer, scripted
from stream_program import REFUSED, run

from penstock_client.payloads import Assign, Refuse
from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Streamed
from penstock_client.wire import Header, Kind

STEPS = 8


def of_the_first(header: Header, kind: Kind, payload: bytes) -> list[bytes]:
    """An answer that belongs to simulation 0."""
    return [header._replace(kind=kind, simulation=0).pack(), payload]


LATE: dict[str, Any] = {
    "STREAMED": lambda h: of_the_first(h, Kind.STREAMED, Streamed(STEPS, 0, 0).pack()),
    "REFUSE": lambda h: of_the_first(h, Kind.REFUSE, Refuse(Reason.SIZE, "of the first").pack()),
}


@pytest.mark.parametrize("late", LATE)
def test_late_answers_of_an_earlier_simulation_are_ignored(programs: Path, tmp_path: Path, late: str) -> None:
    """The second simulation's own answer to END is a refusal."""

    def step(header: Header) -> list[bytes] | None:
        return LATE[late](header) if header.simulation == 1 else None

    def end(header: Header) -> list[bytes]:
        if header.simulation == 0:
            return [header._replace(kind=Kind.STREAMED).pack(), Streamed(STEPS, 0, 0).pack()]
        return [header._replace(kind=Kind.REFUSE).pack(), Refuse(Reason.SIZE, "not whole").pack()]

    script: dict[Kind, Any] = {
        Kind.NEXT: lambda h: [h._replace(kind=Kind.ASSIGN).pack(), Assign((2.0,), False).pack()],
        Kind.BLOCK: step,
        Kind.END: end,
        Kind.FINISH: answer(Kind.FINISHED),
    }
    with scripted(tmp_path, script, timeout_ms=60_000) as path:
        code, said, _ = run(programs, "2", str(STEPS), "4", name="many", PENSTOCK_CONNECT=str(path))
    assert code == REFUSED, said
    assert said.startswith("finish: not whole")
