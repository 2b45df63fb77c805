"""What a run of the benchmark was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from performance.pairs import Row


@dataclass(frozen=True)
class Plan:
    """The settings of a run.

    Attributes:
        quick: whether to measure fewer cases, for a shorter time.
        rounds: how often each thing is measured.
        scratch: a folder on disk, which is removed in the end.
        reverb_python: the Python that has DeepMind's Reverb; None where there is none.
        show: called with each row as soon as it is there.
    """

    quick: bool
    rounds: int
    scratch: Path
    reverb_python: Path | None
    show: Callable[[Row], None]

    def short_folder(self, letter: str) -> Path:
        """Return a path for Ray's files, which is not made; paths of Ray's sockets are short, or it does not start."""
        return self.scratch.parent / f"{letter}{self.scratch.name[-8:]}"
