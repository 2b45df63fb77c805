"""[solver]: which solver runs, how often, and how many at a time."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from penstock_server.study.section import Seconds, Section

_MESH = [["blockMesh"]]

MOST = 10**8
"""Simulations: their points and states are held in memory."""


class EntrySection(Section):
    """One of [solver.entries]: a dictionary entry of an OpenFOAM case that a parameter sets.

    Attributes:
        file: path inside the case, such as "0/U".
        entry: dotted path, such as "boundaryField.movingWall.value".
        value: format of the text to write; "{}" stands for factor * parameter ** power.
        factor: see `value`.
        power: see `value`.
    """

    file: str
    entry: str
    value: str = "{}"
    factor: float = Field(1.0, allow_inf_nan=False)
    power: float = Field(1.0, allow_inf_nan=False)

    @field_validator("file")
    @classmethod
    def _inside(cls, file: str) -> str:
        path = PurePosixPath(file)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError("expected the path of a file inside the case")
        return file


def _how_many(entry: object) -> str:
    return "several" if isinstance(entry, list | tuple) else "one"


Entries = Annotated[
    Annotated[EntrySection, Tag("one")] | Annotated[list[EntrySection], Tag("several"), Field(min_length=1)],
    Discriminator(_how_many),
]


class SolverSection(Section):
    """[solver]: which solver runs, how often, and how many at a time. Exactly one of `adapter` and `command` is given.

    Attributes:
        adapter: "openfoam", a built-in solver such as "heat2d", or "package.module:Class".
        command: any program that streams through PENSTOCK_CONNECT; "{name}" in an argument stands for a parameter.
        case: OpenFOAM template case, or the working directory of the command.
        simulations: number of simulations to train on.
        validation_simulations: number of held-out simulations.
        concurrency: workers that Penstock starts, each running one simulation at a time; 0 where all workers are
            started elsewhere.
        ranks: MPI ranks of one simulation.
        every: stream each n-th time step.
        last: also stream the state at the end of the run, if `every` has not (OpenFOAM).
        region: mesh of the fields; None for the default mesh (OpenFOAM).
        retries: further attempts at a simulation that failed.
        retry_final: whether a failure that the solver calls final (it has diverged, its preparation failed) is tried
            again like any other.
        on_failure: what happens to a simulation without attempts left: "drop" gives it up, "redraw" replaces it by
            another point of the parameter space.
        same_failures: the study stops when so many simulations, the first of all, have failed for good with the same
            words; 0: it does not.
        wall_time: limit for one attempt at a simulation, in seconds.
        application: OpenFOAM solver program; None for the one that the case's controlDict names.
        mesh_commands: commands that make the mesh of an OpenFOAM case.
        entries: parameter name to the dictionary entry, or the list of entries, that it sets (OpenFOAM).
        options: keyword arguments of a built-in solver or class.
    """

    adapter: str | None = None
    command: list[str] | None = Field(None, min_length=1)
    case: str | None = None
    simulations: int = Field(gt=0, le=MOST)
    validation_simulations: int = Field(0, ge=0, le=MOST)
    concurrency: int = Field(1, ge=0, le=10**6)
    ranks: int = Field(1, gt=0)
    every: int = Field(1, gt=0)
    last: bool = False
    region: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")
    retries: int = Field(2, ge=0, lt=2**31)
    retry_final: bool = False
    on_failure: Literal["drop", "redraw"] = "drop"
    same_failures: int = Field(5, ge=0)
    wall_time: Seconds = 3600.0
    application: str | None = None
    mesh_commands: list[list[str]] = _MESH
    entries: dict[str, Entries] = {}
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> SolverSection:
        if (self.adapter is None) == (self.command is None):
            raise ValueError('expected exactly one of adapter = "..." and command = ["...", ...]')
        if self.adapter == "openfoam" and self.case is None:
            raise ValueError('adapter = "openfoam" needs case = "path/to/template case"')
        if self.adapter != "openfoam" and (self.last or self.region is not None):
            raise ValueError('last and region are for adapter = "openfoam" only')
        if self.adapter != "openfoam" and (self.application is not None or self.mesh_commands != _MESH):
            raise ValueError('application and mesh_commands are for adapter = "openfoam" only: remove them')
        if self.adapter not in (None, "openfoam") and self.case is not None:
            raise ValueError(
                f"case = {self.case!r} is for OpenFOAM and for command: a Python solver has no case; remove it"
            )
        return self

    @property
    def redraws(self) -> int:
        """Largest number of simulations that may be replaced: a tenth of them, rounded up.

        Their ids follow those of the held-out simulations.
        """
        return -(-self.simulations // 10) if self.on_failure == "redraw" else 0
