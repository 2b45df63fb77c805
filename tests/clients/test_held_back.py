"""Small pieces are held back for a bounded time and, where solver ranks share time steps, for a bounded number of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_server import answer, scripted
from stream_program import run

from live_server import live_server
from penstock_client import Client, Field
from penstock_client.payloads import Finish, Outcome
from penstock_client.stream_payloads import Streamed
from penstock_client.wire import Header, Kind

Solver = Callable[[Path, Path, int, int, float], None]


def in_c(programs: Path, connect: Path, ranks: int, steps: int, pause: float) -> None:
    options = [str(steps), "4", f"ranks={ranks}", f"pause_ms={1000 * pause:.0f}"]
    code, said, _ = run(programs, *options, PENSTOCK_CONNECT=str(connect))
    assert (code, said) == (0, "finished")


def in_python(programs: Path, connect: Path, ranks: int, steps: int, pause: float) -> None:
    with Client(connect, ranks=ranks) as client:
        simulation = client._next(0, 1)
        assert simulation is not None
        simulation.announce(u=Field((4,)))
        for step in range(steps):
            simulation.send(step, offset=0, u=np.zeros(2 if ranks == 2 else 4))
            time.sleep(pause)
        simulation.finish()


def first_steps(tmp_path: Path, solve: Callable[[Path], None], steps: int, coalesce_ms: int) -> list[int]:
    """First time step of each message of time steps, where a megabyte may be held back for so long."""
    seen: list[int] = []
    blocks: list[int] = []  # of these, whole time steps

    def piece(header: Header) -> None:
        seen.append(header.step)

    def block(header: Header) -> None:
        seen.append(header.step)
        blocks.append(header.step)

    def end(header: Header) -> list[bytes]:
        return [header._replace(kind=Kind.STREAMED).pack(), Streamed(len(blocks) or steps, 0, 0).pack()]

    script: dict[Kind, Any] = {
        Kind.PIECE: piece,
        Kind.BLOCK: block,
        Kind.END: end,
        Kind.FINISH: answer(Kind.FINISHED),
    }
    with scripted(tmp_path, script, timeout_ms=60_000, coalesce=(1 << 20, coalesce_ms), credit=1 << 20) as path:
        solve(path)
    return seen


@pytest.mark.parametrize("solver", [in_c, in_python])
def test_a_piece_waits_no_longer_than_the_coalescing_time(programs: Path, tmp_path: Path, solver: Solver) -> None:
    """Time steps follow each other faster than that, so each by itself would be a reason to wait on."""
    seen = first_steps(tmp_path, lambda path: solver(programs, path, 1, 40, 0.01), 40, coalesce_ms=100)
    assert len(seen) >= 3, seen


@pytest.mark.parametrize("solver", [in_c, in_python])
def test_a_rank_holds_back_its_part_of_few_time_steps(programs: Path, tmp_path: Path, solver: Solver) -> None:
    seen = first_steps(tmp_path, lambda path: solver(programs, path, 2, 40, 0.0), 40, coalesce_ms=60_000)
    # the first time step follows none, so it is sent at once
    assert seen == [0, 1, 9, 17, 25, 33], seen


@pytest.mark.parametrize("solver", [in_c, in_python])
def test_a_solver_alone_holds_back_as_many_as_fit(programs: Path, tmp_path: Path, solver: Solver) -> None:
    seen = first_steps(tmp_path, lambda path: solver(programs, path, 1, 40, 0.0), 40, coalesce_ms=60_000)
    assert seen == [0, 1], seen


def test_a_rank_with_few_points_does_not_fail_one_with_many(tmp_path: Path) -> None:
    """Two ranks in lockstep: the server bounds the unfinished time steps, of which the smaller rank holds the rest."""
    large, small, steps = 2000, 10, 300
    with live_server(tmp_path / "run", {"u": {}}, credit=262144) as server:
        with Client(server.connect, ranks=2) as first, Client(server.connect, rank=1, ranks=2) as second:
            one = first.next_simulation()
            assert one is not None
            two = second._next(one.id, one.attempt)
            assert two is not None
            for part in (one, two):
                part.announce(u=Field((large + small,)))
            for step in range(steps):
                one.send(step, offset=0, u=np.full(large, float(step)))
                two.send(step, offset=large, u=np.full(small, float(step)))
            for part in (one, two):
                for stream in part._streams:
                    stream.request_end()
            one.finish()
            two.finish()
            assert first.next_simulation() is None
        report = server.report()
    assert report["samples"]["unique"] == steps


def test_a_message_that_is_no_unicode_can_be_reported() -> None:
    """File names that are not UTF-8 reach Python with unpaired surrogates."""
    said = Finish.unpack(Finish(Outcome.FAILED, 1, 0, "file \udcf6" + "ä" * 100_000, 0.0).pack())
    assert said.message.startswith("file ?ää")
    assert len(said.message.encode()) <= 1 << 16
