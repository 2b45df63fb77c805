"""The signals that end a study: from the keyboard, from `kill`, and from a batch system."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from penstock_solvers.processes import keep_from_children

# SIGHUP: the terminal has been closed. SIGUSR1: a batch system's, before the time is up.
CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Signals:
    """Catches the signals in CAUGHT: the first asks the study to stop, the second ends this process at once.

    SIGHUP stays ignored where it is, as under nohup. It never counts as the second signal, since a closed terminal often
    sends it after another one.

    Attributes:
        received: name of the first signal, such as "SIGTERM"; "" before it.
        on_second: called at the second signal, before the process ends.
    """

    def __init__(self) -> None:
        self.received = ""
        self.on_second: Callable[[], None] = lambda: None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals for as long as the context lasts."""
        before = {s: signal.getsignal(s) for s in CAUGHT}
        keep_from_children(CAUGHT, self._handle)
        self.catch()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def catch(self) -> None:
        """Install the handlers; call it again after Ray has installed its own."""
        for number in CAUGHT:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received and number == signal.SIGHUP:
            return
        if self.received:
            self.on_second()
            raise SystemExit(128 + number)
        self.received = signal.Signals(number).name
