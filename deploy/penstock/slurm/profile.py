"""The profile: what a cluster wants to know of each job, and what each job needs before Penstock can run in it (TOML)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from penstock.study import StudyError, problems_of, read_toml
from penstock_server.study import Bytes, Seconds, Section

_SLURM_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")


def _seconds(value: object) -> object:
    """Slurm's own way to write times, [days-]hours:minutes:seconds, to seconds; anything else passes through."""
    match = _SLURM_TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return value
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


WallTime = Annotated[Seconds, BeforeValidator(_seconds)]


class SlurmSection(Section):
    """[slurm]: what holds for every job.

    account, partition, qos: as sbatch takes them. modules: `module load` each. environment: shell lines, run after the modules.
    python: the interpreter that Penstock is installed in, on the nodes. container: what goes before it on a command line, such as
    "apptainer exec --nv penstock.sif". sbatch: further options, such as "--constraint=ib". via: what goes before Slurm's commands inside
    the server job, such as "ssh login1", where nodes (or the container) cannot run them. poll: seconds between two looks at the queue.
    """

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    modules: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    python: str | None = None
    container: str | None = None
    sbatch: tuple[str, ...] = ()
    via: str | None = None
    poll: Seconds = 10.0

    @property
    def interpreter(self) -> str:
        """Where none is given: this one, or, in a container, the container's."""
        return self.python or ("python3" if self.container else sys.executable)


class JobSection(Section):
    """What the server's and the workers' jobs have in common: their share of a node, and options of their own.

    time: the wall-time limit. cpus: cores (of each worker). memory: of each job. gpus: a number, or "type:number".
    signal: so long before the limit, a job is told to come to an end.
    """

    time: WallTime
    cpus: int = Field(1, gt=0)
    memory: Bytes | None = None
    gpus: int | str = 0
    partition: str | None = None
    qos: str | None = None
    sbatch: tuple[str, ...] = ()
    signal: WallTime = 120.0

    @model_validator(mode="after")
    def _time_to_signal(self) -> JobSection:
        if 0 < self.time <= self.signal:
            raise ValueError(
                f"signal = {self.signal:g} s with time = {self.time:g} s: expected a signal before the end; raise time"
            )
        return self


class ServerJob(JobSection):
    """[server]: the job of the server. cpus: threads of receiving and training.

    requeue: how often the job may go back to the queue when its time is up, to go on from its checkpoint (0: never). restarts: how
    often a server that died, or whose job was cancelled, is started again. interface: the network that workers reach it by, such as
    "ib0" (default: the node's address, as Slurm has it). nodes: for trainer ranks, as many on each, in one network; cpus, memory and gpus
    are each node's.
    """

    requeue: int = Field(0, ge=0)
    restarts: int = Field(3, ge=0)
    interface: str | None = None
    nodes: int = Field(1, ge=1)


class WorkerJobs(JobSection):
    """[workers]: jobs, each of which serves simulation after simulation until its time is up; then another takes over.

    start: "array": jobs of an array that the server's job submits; "together": no jobs of their own, but the second component of the
    server's, with room for `count` of them. count: jobs at a time. each: worker processes in a job. tasks: of each worker, for a solver
    that is started with mpirun or srun: as many as its ranks. time: the server's with "together".
    """

    start: Literal["array", "together"] = "array"
    time: WallTime = 0.0  # none; no profile that was read has it
    count: int = Field(1, gt=0)
    each: int = Field(1, gt=0)
    tasks: int = Field(1, gt=0)
    signal: WallTime = 60.0

    @model_validator(mode="after")
    def _times_and_tasks(self) -> WorkerJobs:
        if self.start == "array" and not self.time:
            raise ValueError('time: missing; add time = "2 h"')
        if self.start == "together" and self.tasks > 1:
            raise ValueError(
                f'tasks = {self.tasks} with start = "together": expected 1, for mpirun finds no tasks of its own in a step; '
                'use start = "array"'
            )
        if self.start == "together" and self.gpus and self.each > 1:
            raise ValueError(
                f'each = {self.each} with start = "together" and gpus: expected 1, for each worker is a step with GPUs of its own; '
                "raise count instead"
            )
        return self


class Profile(Section):
    """A whole profile."""

    slurm: SlurmSection = SlurmSection()
    server: ServerJob
    workers: WorkerJobs

    @property
    def together(self) -> bool:
        """Whether server and workers are one job."""
        return self.workers.start == "together"

    @model_validator(mode="after")
    def _one_job(self) -> Profile:
        if not self.together:
            return self
        if self.workers.time not in (0.0, self.server.time):
            raise ValueError(
                f'[workers] time = {self.workers.time:g} s with start = "together": expected the server\'s, '
                f"{self.server.time:g} s, for they are one job; leave it out"
            )
        if (self.workers.memory is None) != (self.server.memory is None):
            raise ValueError(
                '[workers] start = "together" with memory for one of server and workers: expected it for both, or Slurm takes '
                "it for both; give the other's"
            )
        workers = self.workers.model_copy(update={"time": self.server.time})
        return self.model_copy(update={"workers": workers})

    @model_validator(mode="after")
    def _single_lines(self) -> Profile:
        for place, text in _texts(self):
            if "\n" in text or "\r" in text:
                raise ValueError(f"{place} holds a line break: expected one line each; make a list of them")
        return self


# What to write where a key has no default that could serve as an example.
EXAMPLES: dict[tuple[str, ...], str] = {
    ("server",): '[server] with time = "4 h", cpus = 8 and memory = "32 GiB"',
    ("server", "time"): 'time = "4 h"',
    ("server", "memory"): 'memory = "32 GiB"',
    ("server", "gpus"): "gpus = 1",
    ("server", "nodes"): "nodes = 1",
    ("server", "interface"): 'interface = "ib0"',
    ("workers",): '[workers] with count = 16 and time = "2 h"',
    ("workers", "time"): 'time = "2 h"',
    ("workers", "memory"): 'memory = "4 GiB"',
    ("slurm", "account"): 'account = "project"',
    ("slurm", "partition"): 'partition = "compute"',
    ("slurm", "modules"): 'modules = ["openmpi/5"]',
    ("slurm", "environment"): 'environment = ["export OMP_PLACES=cores"]',
    ("slurm", "sbatch"): 'sbatch = ["--constraint=ib"]',
}


def load_profile(path: Path) -> Profile:
    """Read a profile. Raises StudyError with one line for each problem that was found."""
    data = read_toml(path, "profile")
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        raise StudyError(
            [f"{path}: {line}" for _, line in problems_of(error, data, root=Profile, examples=EXAMPLES)]
        ) from error


def write_profile(profile: Profile, path: Path) -> None:
    """Write a profile with its defaults spelt out; `load_profile` reads it back unchanged."""
    path.write_text(tomli_w.dumps(profile.model_dump(mode="json", exclude_none=True)))


def _texts(section: BaseModel, place: str = "") -> Iterator[tuple[str, str]]:
    for name, value in section:
        where = f"{place}.{name}" if place else f"[{name}]"
        if isinstance(value, BaseModel):
            yield from _texts(value, where)
        else:
            values: Any = value if isinstance(value, (list, tuple)) else [value]
            yield from ((where, text) for text in values if isinstance(text, str))
