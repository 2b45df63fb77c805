"""Clients neither hang nor give up too early: a server that forgets them, that restarts, and a process that is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted_server import answer, scripted
from stream_program import REFUSED, SERVER_LOST, run

from penstock_client import Client, Reason, Refused, read_connect_file
from penstock_client.payloads import Refuse
from penstock_client.stream_payloads import Streamed
from penstock_client.wire import Header, Kind
from waiting import PATIENCE, wait_for


def test_a_server_that_forgets_a_client_again_and_again_is_given_up(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_client.control.PAUSE", 0.01)
    asked: list[int] = []

    def forget(header: Header) -> list[bytes]:
        asked.append(header.offset)
        return [header._replace(kind=Kind.REFUSE).pack(), Refuse(Reason.NO_HELLO, "who are you").pack()]

    with scripted(tmp_path, {Kind.NEXT: forget}, timeout_ms=60_000) as path:
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
        assert (code, said) == (REFUSED, "begin: who are you (refused: no_hello)")
        assert len(asked) <= 21
        asked.clear()
        with pytest.raises(Refused, match="who are you"), Client(path) as client:
            client.next_simulation()
        assert len(asked) <= 21


def test_a_restarted_server_is_noticed_before_the_time_out(programs: Path, tmp_path: Path) -> None:
    silent: list[Header] = []

    def heartbeat(header: Header) -> list[bytes] | None:
        silent.append(header)
        if len(silent) == 3:
            replace(read_connect_file(path), incarnation=2).write(path)
        return [header._replace(kind=Kind.ALIVE).pack(), b"\0"] if len(silent) < 3 else None

    with scripted(tmp_path, {Kind.HEARTBEAT: heartbeat}, timeout_ms=60_000) as path:
        code, said, _ = run(programs, "100000", "4", "pause_ms=5", PENSTOCK_CONNECT=str(path))
    assert code == SERVER_LOST
    assert said.endswith("the server has been restarted (as incarnation 2): connect again")


def test_a_process_that_was_stopped_does_not_take_the_server_for_lost(programs: Path, tmp_path: Path) -> None:
    begun: list[Header] = []

    def end(header: Header) -> list[bytes]:
        return [header._replace(kind=Kind.STREAMED).pack(), Streamed(60, 0, 0).pack()]

    script: dict[Kind, Any] = {Kind.BLOCK: begun.append, Kind.END: end, Kind.FINISH: answer(Kind.FINISHED)}
    with scripted(tmp_path, script, timeout_ms=1500, credit=1 << 20) as path:
        process = subprocess.Popen(
            [programs / "stream", "60", "4", "pause_ms=10"],
            env=os.environ | {"PENSTOCK_CONNECT": str(path), "PENSTOCK_SIMULATION": "0", "PENSTOCK_ATTEMPT": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: len(begun) > 3)
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)  # twice the server's time-out
        process.send_signal(signal.SIGCONT)
        said = process.communicate(timeout=PATIENCE)[0].splitlines()[-1]
    assert (process.returncode, said) == (0, "finished")
