"""Handlers of signals and the children that a process forks, as multiprocessing does: the handlers are not theirs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection
from typing import Any


def keep_from_children(numbers: Collection[signal.Signals], handler: Callable[..., Any]) -> None:
    """Give children that this process forks the default action in place of a handler, so that SIGTERM ends them.

    Args:
        numbers: signals.
        handler: a child keeps any other handler.
    """
    before = threading.local()

    def hold_back() -> None:  # else Python would forget a signal that reaches the child right after the fork
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def let_through() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def forget() -> None:
        for number in numbers:
            if signal.getsignal(number) == handler:
                signal.signal(number, signal.SIG_DFL)
        let_through()

    os.register_at_fork(before=hold_back, after_in_parent=let_through, after_in_child=forget)
