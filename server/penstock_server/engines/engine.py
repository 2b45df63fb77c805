"""The interface of the engines, and the status that they report.

There are four engines:

- `ray.RayEngine`: the coordinator and the trainer ranks are Ray actors.
- `inline.InlineEngine`: everything runs in this process, in a fixed order.
- `offline.OfflineEngine`: one trainer rank trains on a recording.
- `record.RecordEngine`: the stream is written to a file, and nothing is trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penstock_server.coordinator import SimulationCounts


@dataclass(frozen=True)
class StudyStatus:
    """The state of a study at one moment, for a display.

    Attributes:
        phase: "starting", "training", "draining" (production has ended), "recording", "finished", "stopped" or
            "failed".
        elapsed: seconds since the start.
        simulations: simulations by state.
        received: samples that have arrived; time steps where the study is recorded.
        population: samples in all buffers together.
        capacity: samples that all buffers together may hold.
        batches: training steps so far.
        samples_per_second: training throughput of the last seconds.
        loss: training loss of the last batch; None before the first.
        validation_relative_l2: relative L2 error of the last validation; None before the first.
        wanted_workers: number of worker processes that have something to do.
        given_up: host, process id and name of the key of clients that the server has given up, on any machine. Frozen or
            stuck workers among them are to be killed by the launcher that started them.
        message: the reason, when the phase is "failed" or "stopped".
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
    given_up: tuple[tuple[str, int, str], ...] = ()
    message: str = ""


class Engine(Protocol):
    """Runs one study. All calls come from one thread, except `worker_exited` and `fail`, which any thread may call."""

    def start(self) -> Path:
        """Start the server.

        Returns:
            Path of connect.json, which workers need. An offline study has no workers and writes no such file.
        """

    def status(self) -> StudyStatus:
        """Return the state of the study; cheap."""

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        """Note that a worker process has ended; its simulation is handed out again.

        Args:
            pid: its process id.
            code: its exit code.
            message: the last lines of its log.
        """

    def stop(self, reason: str) -> None:
        """End the study early, with a checkpoint and a report of status "stopped". Returns at once; `wait` waits."""

    def fail(self, reason: str) -> None:
        """End the study as `stop` does, but with status "failed", because it cannot go on."""

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; return True when the study has ended."""

    def close(self) -> dict[str, Any]:
        """Shut the server down.

        Returns:
            The report, which is also in report.json (not for a recording).
        """
