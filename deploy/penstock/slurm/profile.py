"""The profile of a cluster (TOML): the resources of each job, and what must be set up before Penstock runs in it."""

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
    """Seconds of a time in Slurm's form, [days-]hours:minutes:seconds; anything else is returned as it is."""
    match = _SLURM_TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return value
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


WallTime = Annotated[Seconds, BeforeValidator(_seconds)]


class SlurmSection(Section):
    """[slurm]: what holds for every job.

    Attributes:
        account: as sbatch takes it.
        partition: as sbatch takes it.
        qos: as sbatch takes it.
        modules: loaded with `module load`, in this order.
        environment: shell lines that are run after the modules are loaded.
        python: the interpreter on the nodes that has Penstock; default: see `interpreter`.
        container: what goes before the interpreter on a command line, such as "apptainer exec --nv penstock.sif".
        sbatch: further options of sbatch, such as "--constraint=ib".
        via: what goes before Slurm's commands inside the server's job, such as "ssh login1", where nodes (or the
            container) cannot run them.
        poll: seconds between two looks at the queue.
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
        """The interpreter to use: `python`, or else this process's, or else the container's."""
        return self.python or ("python3" if self.container else sys.executable)


class JobSection(Section):
    """What jobs of the server and of workers have in common.

    Attributes:
        time: wall-time limit in seconds.
        cpus: cores, of the server or of each worker.
        memory: bytes of memory of each job.
        gpus: a number, or "type:number".
        partition: in place of that of [slurm].
        qos: in place of that of [slurm].
        sbatch: further options of sbatch, after those of [slurm].
        signal: seconds before the wall-time limit at which Slurm asks a job to end.
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
    """[server]: the job of the server; its cores receive data and train.

    Attributes:
        requeue: how often the job goes back to the queue when its time is up, to continue from its checkpoint.
        restarts: how often a server that died, or whose job was cancelled, is started again.
        interface: the network interface by which workers reach the server, such as "ib0"; default: the address that
            Slurm has for the node.
        nodes: number of nodes, in one network, with the same number of trainer ranks on each. cpus, memory and gpus
            are those of each node.
    """

    requeue: int = Field(0, ge=0)
    restarts: int = Field(3, ge=0)
    interface: str | None = None
    nodes: int = Field(1, ge=1)


class WorkerJobs(JobSection):
    """[workers]: jobs that serve simulation after simulation until their time is up; then others take their place.

    Attributes:
        start: "array": the server's job submits an array of jobs; "together": workers run in the second component of
            the server's own job, which has room for `count` of them.
        time: wall-time limit in seconds; with "together" that of the server.
        count: how many jobs at a time.
        each: worker processes in a job.
        tasks: Slurm tasks of each worker, for a solver that is started with mpirun or srun: as many as its ranks.
        signal: seconds before the wall-time limit at which Slurm asks a job to end.
    """

    start: Literal["array", "together"] = "array"
    time: WallTime = 0.0  # not given: a profile may leave it out with start = "together"
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
                f'tasks = {self.tasks} with start = "together": expected 1, because mpirun finds no tasks of its own '
                'in a step; use start = "array"'
            )
        if self.start == "together" and self.gpus and self.each > 1:
            raise ValueError(
                f'each = {self.each} with start = "together" and gpus: expected 1, because each worker is a step '
                "with its own GPUs; raise count instead"
            )
        return self


class Profile(Section):
    """A whole profile.

    Attributes:
        slurm: what holds for every job.
        server: the job of the server.
        workers: the jobs of workers.
    """

    slurm: SlurmSection = SlurmSection()
    server: ServerJob
    workers: WorkerJobs

    @property
    def together(self) -> bool:
        """Whether server and workers share one job."""
        return self.workers.start == "together"

    @model_validator(mode="after")
    def _one_job(self) -> Profile:
        if not self.together:
            return self
        if self.workers.time not in (0.0, self.server.time):
            raise ValueError(
                f'[workers] time = {self.workers.time:g} s with start = "together": expected the server\'s, '
                f"{self.server.time:g} s, because they share one job; leave it out"
            )
        if (self.workers.memory is None) != (self.server.memory is None):
            raise ValueError(
                '[workers] start = "together" with memory for one of server and workers: expected it for both, because '
                "Slurm would apply it to both; give the other's"
            )
        workers = self.workers.model_copy(update={"time": self.server.time})
        return self.model_copy(update={"workers": workers})

    @model_validator(mode="after")
    def _single_lines(self) -> Profile:
        for place, text in _texts(self):
            if "\n" in text or "\r" in text:
                raise ValueError(f"{place} holds a line break: expected one line each; make a list of them")
        return self


# What to write for a key that has no default to show as an example.
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
    """Read a profile.

    Raises:
        StudyError: with a line for each problem.
    """
    data = read_toml(path, "profile")
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        raise StudyError(
            [f"{path}: {line}" for _, line in problems_of(error, data, root=Profile, examples=EXAMPLES)]
        ) from error


def write_profile(profile: Profile, path: Path) -> None:
    """Write a profile with its defaults written out; `load_profile` reads it back unchanged."""
    path.write_text(tomli_w.dumps(profile.model_dump(mode="json", exclude_none=True)))


def _texts(section: BaseModel, place: str = "") -> Iterator[tuple[str, str]]:
    """Place and value of every text in a profile."""
    for name, value in section:
        where = f"{place}.{name}" if place else f"[{name}]"
        if isinstance(value, BaseModel):
            yield from _texts(value, where)
        else:
            values: Any = value if isinstance(value, (list, tuple)) else [value]
            yield from ((where, text) for text in values if isinstance(text, str))
