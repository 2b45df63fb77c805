"""The study's settings of an OpenFOAM case: which entry each parameter sets, what is streamed, how the mesh is made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_MESH = (("blockMesh",),)
# Folders that are large and only read once the mesh exists.
LINKED = frozenset({"polyMesh", "triSurface", "extendedFeatureEdgeMesh", "geometry"})


@dataclass(frozen=True)
class Entry:
    """An entry of the case that a parameter sets.

    Attributes:
        file: path of the dictionary in the case, such as "0/U".
        entry: dotted path of the entry in the dictionary.
        value: format of the entry's text, in which "{}" stands for the number.
        factor: the number is factor * parameter ** power.
        power: see `factor`.
    """

    file: str
    entry: str
    value: str = "{}"
    factor: float = 1.0
    power: float = 1.0

    def text(self, parameter: float) -> str:
        """Format a value of the parameter.

        Args:
            parameter: the value.

        Returns:
            The text of the entry.

        Raises:
            ValueError: the format is invalid, or the parameter has no such power.
        """
        try:
            number = self.factor * float(parameter) ** self.power
            if not isinstance(number, float) or not math.isfinite(number):
                raise ValueError(f"{self.factor:g} * {parameter:g} ** {self.power:g} is not a finite number")
            text = self.value.format(number)
            constant = self.value.format(1.0) == self.value.format(2.0)
        except (KeyError, IndexError, AttributeError, ValueError, ArithmeticError) as error:
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
        entries: the entries that each parameter sets, by name of the parameter.
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
    entries: Mapping[str, tuple[Entry, ...]]
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
            entries={name: _targets(given) for name, given in solver.get("entries", {}).items()},
            fields=tuple(solver.get("fields", ())),
            every=int(solver.get("every", 1)),
            ranks=int(solver.get("ranks", 1)),
            application=solver.get("application"),
            mesh_commands=tuple(tuple(command) for command in mesh_commands),
            last=bool(solver.get("last", False)),
            region=solver.get("region"),
        )


def _targets(given: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Entry, ...]:
    return tuple(Entry(**entry) for entry in ([given] if isinstance(given, Mapping) else given))
