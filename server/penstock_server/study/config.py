"""What a study is: the sections of the study file as plain, validated data.

The study file's reading, its overrides and the wording of its errors are in `penstock.study.file`; here are only the
keys, their types, their defaults and what must hold between them. Sizes and times may be written with units
("8 GiB", "60 s"); they are held in bytes and seconds.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from penstock_server.study.parameters import ParametersSection
from penstock_server.study.section import Bytes, Seconds, Section, parse_bytes

FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:+()-]{0,127}")  # they name files and datasets
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class StudySection(Section):
    """[study]: name, seed and engine ("ray": actors; "inline": one process, bit-reproducible)."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    seed: int = Field(0, ge=0)
    engine: Literal["ray", "inline"] = "ray"


class EntrySection(Section):
    """One of [solver.entries]: the dictionary entry of an OpenFOAM case that a parameter sets.

    file: path inside the case, e.g. "0/U". entry: dotted path, e.g. "boundaryField.movingWall.value".
    value: format of what is written; "{}" stands for the parameter.
    """

    file: str
    entry: str
    value: str = "{}"

    @field_validator("file")
    @classmethod
    def _inside(cls, file: str) -> str:
        path = PurePosixPath(file)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError("expected the path of a file inside the case")
        return file


class SolverSection(Section):
    """[solver]: what runs, how often and how many at a time. Exactly one of `adapter` and `command` is given.

    adapter: "openfoam", a built-in solver ("heat2d"), or "package.module:Class". command: any program that streams
    through PENSTOCK_CONNECT; "{name}" in an argument stands for a parameter. case: OpenFOAM template case, or the
    command's working directory. options: passed to a built-in solver or class. concurrency: workers that Penstock starts, each for a
    simulation at a time; 0: none, all come from elsewhere. ranks: MPI ranks per simulation. every:
    stream each n-th time step. retries: further attempts of a simulation that failed. on_failure: what becomes of one that has used
    them up: given up, or replaced by another point of the parameter space. wall_time: of one simulation.
    mesh_commands, application: how an OpenFOAM case is meshed and run (default: blockMesh; the case's controlDict).
    """

    adapter: str | None = None
    command: list[str] | None = Field(None, min_length=1)
    case: str | None = None
    simulations: int = Field(gt=0)
    validation_simulations: int = Field(0, ge=0)
    concurrency: int = Field(1, ge=0)
    ranks: int = Field(1, gt=0)
    every: int = Field(1, gt=0)
    retries: int = Field(2, ge=0)
    on_failure: Literal["drop", "redraw"] = "drop"
    wall_time: Seconds = 3600.0
    application: str | None = None
    mesh_commands: list[list[str]] = [["blockMesh"]]
    entries: dict[str, EntrySection] = {}
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> SolverSection:
        if (self.adapter is None) == (self.command is None):
            raise ValueError('expected exactly one of adapter = "..." and command = ["...", ...]')
        if self.adapter == "openfoam" and self.case is None:
            raise ValueError('adapter = "openfoam" needs case = "path/to/template case"')
        return self

    @property
    def redraws(self) -> int:
        """How many simulations may be replaced at most: a tenth of them, rounded up. Their ids follow those of the held-out ones."""
        return -(-self.simulations // 10) if self.on_failure == "redraw" else 0


class FieldSection(Section):
    """One of [fields]: what is streamed. What is left out is taken from the first client that announces it."""

    components: int | None = Field(None, gt=0)
    shape: tuple[int, ...] | None = None


class SamplesSection(Section):
    """[samples]: what the model trains on.

    window: consecutive time steps in a sample (1: a time step). bundle: with window > 1, how many time steps the model takes and
    gives at once. stride: steps between the starts of two windows.
    time: which time the model sees, the time step's index ("step") or the solver's time ("physical").
    """

    window: int = Field(1, gt=0)
    bundle: int = Field(1, gt=0)
    stride: int = Field(1, gt=0)
    time: Literal["step", "physical"] = "step"

    @model_validator(mode="after")
    def _whole_bundles(self) -> SamplesSection:
        if self.bundle > 1 and (self.window % self.bundle or self.window < 2 * self.bundle):
            raise ValueError(
                f"window = {self.window} with bundle = {self.bundle}: expected a window of two or more whole bundles; "
                f"set window = {2 * self.bundle}"
            )
        return self


class BufferSection(Section):
    """[buffer]: of all trainer ranks together (SC 2023, section 3), each of which has an equal share. capacity: in samples, or a
    size such as "8 GiB".

    watermark: population above which training may draw. presentations_per_sample: producers wait until training has
    drawn this many samples for each one received (0: they never wait for that). credit: bytes one client may
    have on the way.
    """

    policy: Literal["fifo", "firo", "reservoir"] = "reservoir"
    capacity: int | str = 2000
    watermark: int = Field(0, ge=0)
    presentations_per_sample: float = Field(0.0, ge=0)
    credit: Bytes = 8 * 2**20

    @model_validator(mode="after")
    def _consistent(self) -> BufferSection:
        if isinstance(self.capacity, int):
            if self.capacity <= 0:
                raise ValueError(f"capacity = {self.capacity}: expected at least 1 sample")
            if self.watermark >= self.capacity:
                raise ValueError(
                    f"watermark = {self.watermark} with capacity = {self.capacity}: expected watermark < capacity, "
                    "or training would never start"
                )
        else:
            try:
                number = parse_bytes(self.capacity)
            except ValueError:
                number = None
            if not isinstance(number, int) or number <= 0:
                raise ValueError(f'capacity = {self.capacity!r}: expected samples (2000) or a size ("8 GiB")')
        return self


class NormalisationSection(Section):
    """[normalisation]: streaming mean and standard deviation (Welford), per input and per field component."""

    inputs: bool = True
    targets: bool = True


class ModelSection(BaseModel):
    """[model]: a registered model or "package.module:Class"; every other key is passed to it."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    name: str = "mlp"

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class NamedOptions(BaseModel):
    """A torch class by name with its keyword arguments, e.g. { name = "adam", lr = 1e-3 }."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TrainingSection(Section):
    """[training]: how the model learns and when it stops.

    ranks: processes that train one model, each with a device, a buffer and connections of its own. batch_size is that of all ranks
    together, and the gradient the mean over all of it, so that neither the learning rate nor anything else changes with their number.
    Training ends when production has ended and the buffer has drained, or earlier at max_batches, target_error
    (validation relative L2) or wall_time. min_batches: after production has ended, go on drawing from what the buffer holds
    until so many batches are done, then drain. optimizer, scheduler: torch classes by name (any case); the scheduler steps once a batch.
    loss: "mse", "l1", "relative_l2" or "package.module:function". threads: CPU threads of training, "auto" from the
    cores that solvers leave free. own_cores: keep solvers and receiving off the cores of these threads. pushforward: with window > 1,
    at most so many of the model's own steps, without gradient, go before each one that is trained on (Brandstetter et al. 2022,
    section 3.1).
    source: an HDF5 file of `penstock record` to train on instead of a stream; epochs: passes over it (default: as many as
    max_batches takes, or one); loader_workers: processes that read it.
    """

    batch_size: int = Field(32, gt=0)
    optimizer: NamedOptions = NamedOptions(name="adam", lr=1e-3)
    scheduler: NamedOptions | None = None
    loss: str = "mse"
    ranks: int = Field(1, gt=0)
    device: str = "auto"
    threads: int | Literal["auto"] = "auto"
    own_cores: bool = False
    max_batches: int | None = Field(None, gt=0)
    min_batches: int = Field(0, ge=0)
    target_error: float | None = Field(None, gt=0)
    wall_time: Seconds | None = None
    validate_every: int = Field(200, gt=0)
    checkpoint_every: Seconds = 60.0
    checkpoints_kept: int = Field(2, gt=0)
    pushforward: int = Field(0, ge=0)
    source: str | None = None
    epochs: int | None = Field(None, gt=0)
    loader_workers: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _bounds(self) -> TrainingSection:
        if self.max_batches is not None and self.min_batches > self.max_batches:
            raise ValueError(
                f"min_batches = {self.min_batches} is above max_batches = {self.max_batches}: lower one of them"
            )
        return self


class ServerSection(Section):
    """[server]: addresses, time-outs and bounds.

    host: the address that sockets bind and clients are told ("127.0.0.1"), or a network such as "10.0.0.0/24", in which each machine
    that the server runs on takes its own. max_message: bytes that a client may send at once; the
    connection that sends more is closed before memory is taken for it.
    max_restarts: how often the server is started again after a process of its own has died, before the study fails.
    """

    host: str = "127.0.0.1"
    max_message: Bytes = 2**28
    heartbeat: Seconds = 2.0
    client_timeout: Seconds = 60.0
    server_timeout: Seconds = 60.0
    max_restarts: int = Field(5, ge=0)

    @field_validator("host")
    @classmethod
    def _one_address(cls, host: str) -> str:
        try:
            network = ipaddress.IPv4Network(host)
        except ValueError:
            network = None
        if network is None or network.is_unspecified or network.is_multicast or network.prefixlen == 0:
            raise ValueError(
                "expected one IPv4 address of this machine, or the network that all machines of the server are in, such as "
                '"10.0.0.0/24": sockets bind it and clients are told it, so that neither a name nor "all addresses" will do'
            )
        return host


class Study(Section):
    """A whole study file. `directory` is the folder it lies in: relative paths in it start there."""

    study: StudySection
    parameters: ParametersSection
    solver: SolverSection
    fields: dict[str, FieldSection] = Field(min_length=1)
    samples: SamplesSection = SamplesSection()
    buffer: BufferSection = BufferSection()
    normalisation: NormalisationSection = NormalisationSection()
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    server: ServerSection = ServerSection()
    directory: str = Field(".", exclude=True)

    @field_validator("fields")
    @classmethod
    def _usable_names(cls, fields: dict[str, FieldSection]) -> dict[str, FieldSection]:
        for name in fields:
            if not FIELD_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a usable field name: expected a letter or _, then letters, digits and _ . : + - ( ) only"
                )
        return fields

    @model_validator(mode="after")
    def _fit_together(self) -> Study:
        blocks = self.samples.window // self.samples.bundle
        if self.training.pushforward > max(0, blocks - 2):
            raise ValueError(
                f"training.pushforward = {self.training.pushforward} with samples.window = {self.samples.window} and "
                f"samples.bundle = {self.samples.bundle}: expected a window of pushforward + 2 bundles; set samples.window = "
                f"{(self.training.pushforward + 2) * self.samples.bundle}"
            )
        if self.parameters.seeds and self.samples.window == 1:
            raise ValueError(
                f'parameters.{self.parameters.seeds[0]} = "seed" with samples.window = 1: a model cannot know which field a seed '
                "stands for; set samples.window = 2, so that it sees the time step before"
            )
        if self.training.epochs is not None and self.training.source is None:
            raise ValueError(
                'training.epochs is for training.source = "data.h5"; give both, or max_batches for a stream'
            )
        return self
