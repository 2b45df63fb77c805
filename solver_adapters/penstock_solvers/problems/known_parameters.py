"""What a built-in solver is told: the parameters it needs, those it can do without, and a clear error about any other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from penstock_client.nearest import did_you_mean


@dataclass(frozen=True)
class KnownParameters:
    """The parameters of a solver.

    solver: its name, for messages. required: those that must be given. defaults: those that need not, and their values then.
    """

    solver: str
    required: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=dict)

    def check(self, names: Collection[str]) -> None:
        """Raises ValueError for a parameter that the solver does not know, or one that it needs and would not be given."""
        takes = ", ".join([*self.required, *(f"{name} (optional)" for name in self.defaults)])
        for name in names:
            if name not in self.required and name not in self.defaults:
                remedy = did_you_mean(name, [*self.required, *self.defaults], "take it out of [parameters]")
                raise ValueError(f"parameter {name!r}: {self.solver} does not know it, it takes {takes}; {remedy}")
        for name in self.required:
            if name not in names:
                raise ValueError(f"parameter {name!r} is missing: {self.solver} takes {takes}; add it to [parameters]")

    def given(self, parameters: Mapping[str, float]) -> dict[str, float]:
        """A value for each parameter: those of a simulation, checked, and the defaults of those it was not given."""
        self.check(parameters)
        return {**{name: parameters[name] for name in self.required}, **self.defaults, **parameters}
