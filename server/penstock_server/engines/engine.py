"""What an engine is: something that runs a study's coordinator and trainer ranks, and says how it goes.

Two exist: `ray_engine.RayEngine` (coordinator and trainer ranks are Ray actors) and `inline_engine.InlineEngine` (everything in
this process, in a fixed order).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penstock_server.coordinator import SimulationCounts


@dataclass(frozen=True)
class StudyStatus:
    """A study at one moment, for a display.

    phase: "starting", "training", "draining" (production has ended), "finished", "stopped" or "failed".
    elapsed: seconds since the start. received: samples that arrived. population, capacity: of all buffers together.
    samples_per_second: training throughput of the last seconds. loss: of the last batch. validation_relative_l2: of the last validation.
    wanted_workers: how many worker processes have something to do. given_up: host and process id of clients that the server has given
    up, on any machine: frozen or stuck workers among them are to be killed by whoever started them.
    message: why, when the phase is "failed" or "stopped".
    """

    phase: str = "starting"
    elapsed: float = 0.0
    simulations: SimulationCounts = field(default_factory=SimulationCounts)
    received: int = 0
    population: int = 0
    capacity: int = 0
    batches: int = 0
    samples_per_second: float = 0.0
    loss: float | None = None
    validation_relative_l2: float | None = None
    wanted_workers: int = 0
    given_up: tuple[tuple[str, int], ...] = ()
    message: str = ""


class Engine(Protocol):
    """Runs one study. Calls come from one thread, except `worker_exited` and `fail`, which may come from any."""

    def start(self) -> Path:
        """Bring the server up; returns the connect.json that workers need."""

    def status(self) -> StudyStatus:
        """How the study stands; cheap."""

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        """A worker process has ended: what it held is handed out again. message: its last words, for the log."""

    def stop(self, reason: str) -> None:
        """End the study early: a checkpoint and a report with status "stopped". Returns at once; `wait` waits."""

    def fail(self, reason: str) -> None:
        """As `stop`, where the study cannot go on: its status will be "failed"."""

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; True when the study has ended."""

    def close(self) -> dict[str, Any]:
        """Shut the server down and return the report, which is also in report.json."""
