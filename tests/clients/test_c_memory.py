"""libpenstock reports a failed allocation as such, wherever it happens."""

from __future__ import annotations

from pathlib import Path

from scripted_server import scripted
from stream_program import NO_MEMORY, run

from penstock_client.stream_payloads import Streamed
from penstock_client.wire import Header, Kind

OWN_MEMORY = 101  # exit code of the program where its own allocation failed


def streamed(header: Header) -> list[bytes]:
    return [header._replace(kind=Kind.STREAMED).pack(), Streamed(3, 0, 0).pack()]


def finished(header: Header) -> list[bytes]:
    return [header._replace(kind=Kind.FINISHED).pack(), b""]


def test_every_allocation_that_fails_is_reported_as_no_memory(programs: Path, tmp_path: Path) -> None:
    told = []
    script = {Kind.END: streamed, Kind.FINISH: finished}
    with scripted(tmp_path, script, timeout_ms=60_000) as path:
        for number in range(1, 100):
            variables = {"PENSTOCK_CONNECT": str(path), "PENSTOCK_CONNECT_TIMEOUT": "30", "STARVED_AT": str(number)}
            code, said, _ = run(programs, name="starved", **variables)
            told.append((code, said))
            if [code for code, _ in told[-3:]] == [0, 0, 0]:  # beyond the last allocation
                break
    failed = [(code, said) for code, said in told if code not in (0, OWN_MEMORY)]
    assert len(failed) > 20
    assert [(code, said) for code, said in failed if code != NO_MEMORY or "out of memory" not in said] == []
    assert sum(code == OWN_MEMORY for code, _ in told) == 1
    # The name of connect.json is kept for a restarted server, and nothing else can be done without.
    assert [code for code, _ in told].count(0) == 4
