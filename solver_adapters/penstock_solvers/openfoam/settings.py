"""The study's settings of an OpenFOAM case: which entry each parameter sets, what is streamed, how the mesh is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_MESH = (("blockMesh",),)
# Files under system/ that mesh tools do not read. A parameter in any other file there means a mesh per simulation.
_NOT_OF_THE_MESH = {"controlDict", "fvSchemes", "fvSolution", "fvOptions", "decomposeParDict"}
# Folders that are large and only read once the mesh exists.
LINKED = frozenset({"polyMesh", "triSurface", "extendedFeatureEdgeMesh", "geometry"})


@dataclass(frozen=True)
class Entry:
    """The entry of the case that a parameter sets.

    Attributes:
        file: path of the dictionary in the case, such as "0/U".
        entry: dotted path of the entry in the dictionary.
        value: format of the entry's text, in which "{}" stands for the parameter.
    """

    file: str
    entry: str
    value: str = "{}"

    def text(self, parameter: float) -> str:
        """Format a value of the parameter.

        Args:
            parameter: the value.

        Returns:
            The text of the entry.

        Raises:
            ValueError: the format is invalid.
        """
        try:
            text = self.value.format(float(parameter))
            constant = self.value.format(1.0) == self.value.format(2.0)
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(f"{error}") from error
        if constant:
            raise ValueError('it holds no "{}"')
        return text


@dataclass(frozen=True)
class CaseSettings:
    """The study's settings of its case.

    Attributes:
        case: folder of the template case.
        parameters: names of the study's parameters.
        entries: the entry that each parameter sets, by name of the parameter.
        fields: names of the fields to stream; if empty, no function object is added.
        every: stream every n-th time step.
        ranks: number of MPI ranks.
        application: name of the solver program; None: the one that the controlDict names.
        mesh_commands: the commands that make the mesh, each with its arguments.
        last: also stream the state at the end of the run.
        region: mesh of the fields; None: OpenFOAM's default.
    """

    case: Path
    parameters: tuple[str, ...]
    entries: Mapping[str, Entry]
    fields: tuple[str, ...]
    every: int
    ranks: int
    application: str | None
    mesh_commands: tuple[tuple[str, ...], ...]
    last: bool = False
    region: str | None = None

    @classmethod
    def of(cls, solver: Mapping[str, Any]) -> CaseSettings:
        """Read the settings from the study's [solver] section, which also holds the names of parameters and fields."""
        mesh_commands: Sequence[Sequence[str]] = solver.get("mesh_commands", DEFAULT_MESH)
        return cls(
            case=Path(solver["case"]),
            parameters=tuple(solver.get("parameters", ())),
            entries={name: Entry(**entry) for name, entry in solver.get("entries", {}).items()},
            fields=tuple(solver.get("fields", ())),
            every=int(solver.get("every", 1)),
            ranks=int(solver.get("ranks", 1)),
            application=solver.get("application"),
            mesh_commands=tuple(tuple(command) for command in mesh_commands),
            last=bool(solver.get("last", False)),
            region=solver.get("region"),
        )

    @property
    def mesh_each(self) -> bool:
        """True if a parameter changes the mesh, so that every simulation needs its own mesh."""
        return bool(self.mesh_commands) and any(_shapes_mesh(Path(entry.file)) for entry in self.entries.values())


def _shapes_mesh(file: Path) -> bool:
    if file.parts[0] == "system":
        return file.name not in _NOT_OF_THE_MESH
    return bool(LINKED.intersection(file.parts)) or len(file.parts) == 1
