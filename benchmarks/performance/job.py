"""One stream to measure: so many producers, so many time steps of one size, into batches or into storage."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from performance.pairs import Figures
from performance.processes import Talker, python

SIZES = {"1 KB": 256, "40 KB": 10_000, "400 KB": 100_000, "8 MB": 2_000_000}
"""float32 values of a time step, by name."""


@dataclass(frozen=True)
class Job:
    """One stream.

    Attributes:
        elements: float32 values of a time step.
        producers: processes that send.
        warm: time steps that each sends before the clock starts.
        steps: time steps that each sends afterwards.
        batch: samples of a batch; 0: the samples only go into storage.
        scratch: a folder for files.
        options: of the kind of stream.
    """

    elements: int
    producers: int
    warm: int
    steps: int
    batch: int
    scratch: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def warm_total(self) -> int:
        """Time steps of all producers before the clock starts."""
        return self.producers * self.warm

    @property
    def total(self) -> int:
        """Time steps of all producers."""
        return self.producers * (self.warm + self.steps)

    def as_text(self) -> str:
        """Return the job as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Job:
        """Read a job from JSON."""
        return cls(**json.loads(text))


@dataclass
class Meter:
    """Time and CPU of a consumer since its clock started."""

    cpu: float = field(default_factory=lambda: own_cpu())
    wall: float = field(default_factory=time.perf_counter)

    def figures(self, steps: int) -> dict[str, float]:
        """Return what `steps` time steps have cost until now, and the most memory that this process has had."""
        wall, cpu = time.perf_counter() - self.wall, own_cpu() - self.cpu
        return {
            "samples/s": steps / wall,
            "consumer CPU µs/sample": 1e6 * cpu / steps,
            "peak memory GB": _most_resident() / 1e9,
        }


def provide_memory(job: Job) -> None:
    """Write to as much memory as a stream will fill, and give it back.

    The host of a virtual machine takes free memory away after seconds and provides it again as it is written, which takes
    ten times as long as a copy. The first of several things to be measured would pay for that.
    """
    rows = 4 * job.batch if job.batch else job.total
    np.empty(4 * job.elements * rows, np.uint8).fill(1)


def _most_resident() -> int:
    """Return the most bytes that were resident; getrusage would also count those of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def own_cpu() -> float:
    """Return the CPU seconds of this process and of the processes that it has started."""
    import psutil

    own = psutil.Process()
    seconds = time.process_time()
    for child in own.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system
    return seconds


def run(job: Job, consumer: str, producer: str | None, *, through: list[str] | None = None) -> Figures:
    """Run one stream and return its figures.

    Args:
        job: the stream.
        consumer: kind of consumer, see `consume`.
        producer: kind of producer, see `produce`; None where the consumer starts its own.
        through: command that runs each producer, such as one for another network namespace.

    Raises:
        CannotRun: something that the stream needs is missing on this machine.
        Failed: one of the processes failed.
    """
    with ExitStack() as stack:
        sink = stack.enter_context(Talker(python("consume", consumer, job.as_text())))
        where = sink.hear()
        sources = []
        for number in range(job.producers if producer else 0):
            place = json.dumps({**where, "producer": number})
            command = python("produce", producer, place, job.elements, job.warm, job.steps, through=through or [])
            sources.append(stack.enter_context(Talker(command)))
        for source in sources:
            source.hear()
        sink.hear()  # it has what was sent for warming up
        sink.say()
        sink.hear()  # its clock runs
        for source in sources:
            source.say()
        figures: dict[str, float] = sink.hear()
        used = [source.hear()["cpu"] for source in sources]
        if used:
            figures["producer CPU µs/sample"] = 1e6 * sum(used) / (job.producers * job.steps)
        return figures


def sized(job: Job, most_steps: int, most_bytes: int) -> Job:
    """Return the job with as many time steps as two limits allow, in whole batches.

    Args:
        job: the job.
        most_steps: time steps of all producers together.
        most_bytes: of all these time steps.
    """
    steps = min(most_steps, most_bytes // (4 * job.elements)) // job.producers
    if job.batch:
        steps = max(1, steps // job.batch) * job.batch
    return replace(job, steps=max(2, steps))


def in_scratch(scratch: Path, name: str) -> str:
    """Return a new folder in the scratch folder."""
    folder = scratch / f"{name}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    return str(folder)
