"""The end of a study: the reason, whether too many simulations failed, and the event that it has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable

from penstock_server.coordinator import SimulationCounts


def mostly_failed(simulations: SimulationCounts) -> str:
    """Decide whether so many simulations have failed that the study counts as failed: more than half of them.

    What was trained on the others is kept: checkpoint, exported model and report are there.

    Args:
        simulations: simulations by state, at the study's end.

    Returns:
        The reason; "" where the study has not failed.
    """
    if 2 * simulations.failed <= simulations.requested:
        return ""
    which = "all" if simulations.failed == simulations.requested else "most"
    return (
        f"{which} simulations failed ({simulations.failed} of {simulations.requested}): events.jsonl and logs/ say why"
    )


class StudyEnd:
    """Why a study ends, and whether it has ended. Any thread may call any method.

    Args:
        halt: makes the parts of the engine stop soon; called with the reason of every request to stop, returns at once.

    Attributes:
        error: why the study has failed; "" where it has not. The first reason counts.
        stopped: why the study was asked to stop; "" where it was not. The first reason counts.
    """

    def __init__(self, halt: Callable[[str], None]) -> None:
        self._halt = halt
        self._ended = threading.Event()
        self.error = ""
        self.stopped = ""

    @property
    def ended(self) -> bool:
        """True once nothing of the study runs any more."""
        return self._ended.is_set()

    @property
    def requested(self) -> bool:
        """True once the study was asked to stop, or has failed."""
        return bool(self.error or self.stopped)

    def stop(self, reason: str) -> None:
        """Ask the study to stop."""
        self.stopped = self.stopped or reason
        self._halt(reason)

    def fail(self, reason: str) -> None:
        """Ask the study to stop because it cannot go on."""
        self.note_error(reason)
        self.stop(reason)

    def note_error(self, error: str) -> None:
        """Keep the reason of a failure, without asking anything to stop."""
        self.error = self.error or error

    def finish(self) -> None:
        """Note that the study has ended."""
        self._ended.set()

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; return True when the study has ended."""
        return self._ended.wait(timeout)

    def close(self) -> None:
        """Stop the study unless it has ended, and wait for its end."""
        if not self.ended:
            self.stop("closed")
            self._ended.wait()
