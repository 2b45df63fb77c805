"""A handler of this process is not one of its forked children."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from types import FrameType

from penstock_solvers.processes import keep_from_children


def handle(_number: int, _frame: FrameType | None) -> None:
    raise AssertionError("the handler ran")


def test_a_forked_child_ends_by_sigterm() -> None:
    before = signal.signal(signal.SIGTERM, handle)
    try:
        keep_from_children([signal.SIGTERM], handle)
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        child.join()
        assert child.exitcode == -signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is handle
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_child_keeps_a_handler_that_is_not_named() -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        keep_from_children([signal.SIGUSR2], handle)
        pid = os.fork()
        if pid == 0:
            os._exit(int(signal.getsignal(signal.SIGUSR2) != signal.SIG_IGN))
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        signal.signal(signal.SIGUSR2, before)
