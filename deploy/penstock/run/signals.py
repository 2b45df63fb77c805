"""The signals that end a study: from the keyboard, from `kill`, and from a batch system."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # SIGUSR1: a batch system's, before the time is up


class Signals:
    """Catches SIGINT, SIGTERM and SIGUSR1: the first asks the study to stop, the second ends this process at once.

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
        self.catch()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def catch(self) -> None:
        """Install the handlers; call it again after Ray has installed its own."""
        for number in CAUGHT:
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received:
            self.on_second()
            raise SystemExit(128 + number)
        self.received = signal.Signals(number).name
