"""libpenstock asks again when an answer or a connection is lost, and gives up a server that stays silent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from scripted_server import answer, scripted
from stream_program import REFUSED, SERVER_LOST, U, run

from live_server import live_server, worker
from network import Proxy
from penstock_client.payloads import Accept, Assign, Refuse
from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Streamed
from penstock_client.wire import Header, Kind
from waiting import PATIENCE, busy


def deaf_after(number: int) -> Any:
    """Make a function that answers so many heartbeats and then no more."""
    heard = iter(range(number))
    return lambda h: [h._replace(kind=Kind.ALIVE).pack(), b"\0"] if next(heard, None) is not None else None


SILENT: list[tuple[str, dict[Kind, Any], str]] = [
    ("next", {Kind.NEXT: None}, "begin"),
    ("announce", {Kind.ANNOUNCE: None}, "announce"),
    ("credit", {Kind.BEGIN: None}, "send"),
    ("streamed", {}, "finish"),
]


@pytest.mark.parametrize(("script", "call"), [s[1:] for s in SILENT], ids=[s[0] for s in SILENT])
def test_a_server_that_falls_silent_is_given_up(
    programs: Path, tmp_path: Path, script: dict[Kind, Any], call: str
) -> None:
    with scripted(tmp_path, {Kind.HEARTBEAT: deaf_after(3), **script}) as path:
        code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == SERVER_LOST
    assert said.startswith(f"{call}: the server at tcp://127.0.0.1:")
    assert "has not answered for 0." in said or "has not answered for 1." in said
    assert said.endswith("(time-out 0.6 s): is the study still running? `penstock status` in its run directory tells")
    assert seconds < 5


def test_a_connection_that_breaks_is_noticed_before_the_time_out(programs: Path, tmp_path: Path) -> None:
    with scripted(tmp_path, {Kind.BLOCK: lambda _: "die"}, timeout_ms=60_000) as path:
        code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == SERVER_LOST
    assert "lost the connection to a trainer rank at tcp://127.0.0.1:" in said
    assert seconds < 5


def at_the_second_time(answer: Any, before: Any = None) -> Any:
    """Make a function that answers the first request with `before` (None: not at all) and each later one with `answer`."""
    asked: list[int] = []

    def script(header: Header) -> list[bytes] | None:
        asked.append(header.offset)
        assert asked[0] == header.offset  # a repetition bears the same number
        if len(asked) > 1:
            return answer(header)
        return before(header) if before else None

    return script


def assign(header: Header) -> list[bytes]:
    return [header._replace(kind=Kind.ASSIGN).pack(), Assign((2.0,), False).pack()]


def streamed(header: Header) -> list[bytes]:
    return [header._replace(kind=Kind.STREAMED).pack(), Streamed(3, 0, 0).pack()]


def finished(header: Header) -> list[bytes]:
    return [header._replace(kind=Kind.FINISHED).pack(), b""]


def test_what_is_not_answered_is_asked_again(programs: Path, tmp_path: Path) -> None:
    script = {Kind.NEXT: at_the_second_time(assign), Kind.END: at_the_second_time(streamed), Kind.FINISH: finished}
    with scripted(tmp_path, script, timeout_ms=10_000) as path:
        code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert (code, said) == (0, "finished")
    assert seconds > 7  # twice a little over the time after which it asks again


def test_late_second_answers_are_passed_over(programs: Path, tmp_path: Path) -> None:
    def late(header: Header) -> list[bytes]:
        return assign(header._replace(offset=header.offset - 1))

    script = {Kind.ANNOUNCE: at_the_second_time(answer(Kind.ACCEPT, Accept((0,), (True,)).pack()), late)}
    with scripted(tmp_path, script | {Kind.END: streamed, Kind.FINISH: finished}, timeout_ms=10_000) as path:
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert (code, said) == (0, "finished")


def test_hello_is_said_again_over_a_new_connection(programs: Path, tmp_path: Path) -> None:
    def no_hello(header: Header) -> list[bytes]:
        return [header._replace(kind=Kind.REFUSE).pack(), Refuse(Reason.NO_HELLO, "who are you").pack()]

    script = {Kind.NEXT: at_the_second_time(assign, no_hello), Kind.END: streamed, Kind.FINISH: finished}
    with scripted(tmp_path, script, timeout_ms=10_000) as path:
        code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert (code, said) == (0, "finished")
    assert seconds < 4  # at once


def test_pieces_that_have_not_arrived_are_missed_at_the_end(programs: Path, tmp_path: Path) -> None:
    def end(header: Header) -> list[bytes]:
        return [header._replace(kind=Kind.STREAMED).pack(), Streamed(1, 1, 0).pack()]

    with scripted(tmp_path, {Kind.END: end}) as path:
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == SERVER_LOST
    assert "finish: 2 of 3 pieces have reached a trainer rank" in said
    assert said.endswith("the simulation must be run again")


def test_a_network_that_breaks_costs_an_attempt_at_most(programs: Path, tmp_path: Path) -> None:
    """Control connections are made again without a loss; a data connection with pieces on the way ends the attempt at once."""
    with (
        live_server(tmp_path / "run", U, retries=1) as server,
        Proxy(server.engine._sockets.control_endpoint) as control,
        Proxy(server.engine._sockets.data_endpoint) as data,
        worker(server) as client,
    ):
        server.connect = server.behind(control.endpoint, data.endpoint)
        for simulation in iter(client.next_simulation, None):
            begun, before = time.monotonic(), server.engine.status().received
            process = server.start([programs / "stream", "100", "4", "pause_ms=20"], simulation)
            while server.engine.status().received < before + 10:
                time.sleep(0.01)
            control.cut()
            if simulation.attempt == 1:
                data.cut()
            output = process.communicate(timeout=PATIENCE)[0]
            if simulation.attempt == 1:
                assert process.returncode in (SERVER_LOST, REFUSED), output
                assert time.monotonic() - begun < 20 * busy()
                simulation.fail(output)
            else:
                assert output.splitlines()[-1] == "finished"
                simulation.exited()
        report = server.report()
    assert report["simulations"] == {"requested": 1, "finished": 1, "failed": 0, "restarted": 1, "redrawn": 0}
    assert report["samples"]["unique"] == report["samples"]["expected"] == 100
    assert report["samples"]["duplicates_dropped"] >= 9
    assert control.connections >= 6
