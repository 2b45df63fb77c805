"""A socket's loop ends whatever has happened to its thread."""

from __future__ import annotations

import threading
from pathlib import Path

from penstock_server.network import RouterLoop, open_keys
from penstock_server.telemetry import Metrics
from waiting import wait_for


def loop_in(directory: Path, errors: list[BaseException]) -> RouterLoop:
    return RouterLoop(
        "end",
        "127.0.0.1",
        open_keys(directory),
        lambda *_: [],
        metrics=Metrics("end", "test"),
        on_error=errors.append,
    )


def test_a_loop_whose_thread_has_died_closes_and_takes_no_more_work(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    loop = loop_in(tmp_path, errors)
    loop.start()

    def fail() -> list[tuple[bytes, list[bytes]]]:
        raise OSError("no space left on device")

    loop.post(fail)
    wait_for(lambda: errors)
    wait_for(lambda: not loop._thread.is_alive())
    done = threading.Event()

    def use_and_close() -> None:
        for _ in range(3000):  # more than a queue between two sockets holds
            loop.post(lambda: [])
        loop.close()
        loop.close()
        done.set()

    threading.Thread(target=use_and_close, daemon=True).start()
    wait_for(done.is_set)
    assert [str(error) for error in errors] == ["no space left on device"]


def test_work_is_done_in_order_however_much_is_posted_while_the_thread_is_busy(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    loop = loop_in(tmp_path, errors)
    go, seen = threading.Event(), []
    loop.start()
    loop.post(lambda: (go.wait(60) and []) or [])
    for number in range(3000):
        loop.post(lambda number=number: seen.append(number) or [])
    go.set()
    loop.close()
    assert (seen, errors) == (list(range(3000)), [])


def test_a_loop_whose_authenticator_has_died_ends_with_the_cause(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    loop = loop_in(tmp_path, errors)
    loop.start()
    loop._authenticator.pipe.send(b"TERMINATE")
    wait_for(lambda: errors)
    loop.close()
    assert "nobody could connect any more" in str(errors[0])


def test_a_loop_that_was_never_started_closes(tmp_path: Path) -> None:
    loop = loop_in(tmp_path, [])
    loop.close()
    loop.close()
