"""Notices that the first simulations of a study all fail for the same reason."""

from __future__ import annotations

import re

_PATH = re.compile(r"\S*/\S*")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
SHOWN = 300  # characters of the reason


class SameFailures:
    """Compares the words of the first failures, numbers and paths apart.

    Args:
        number: simulations that must have failed for good with the same words, and none have finished; 0: any number
            is fine.

    Attributes:
        reason: why the study should stop; "" where it should not.
    """

    def __init__(self, number: int) -> None:
        self._left = number
        self._number = number
        self._words = ""
        self.reason = ""

    def note_finished(self) -> None:
        """Note that a simulation has finished: from now on failures are its own matter."""
        self._left = 0

    def note_failed(self, message: str) -> None:
        """Note that a simulation has failed for good.

        Args:
            message: why; its first line is compared.
        """
        if not self._left:
            return
        first = message.strip().partition("\n")[0]
        words = _NUMBER.sub("#", _PATH.sub("path", first))
        if self._left < self._number and words != self._words:
            self._left = 0
            return
        self._words, self._left = words, self._left - 1
        if not self._left:
            self.reason = (
                f"the first {self._number} simulations have all failed with the same words: {first[:SHOWN]} "
                "([solver] same_failures = 0 goes on all the same)"
            )
