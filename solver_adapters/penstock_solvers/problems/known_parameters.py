"""The required and optional parameters of a built-in solver, and errors for unknown or missing ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from penstock_client.nearest import did_you_mean


@dataclass(frozen=True)
class KnownParameters:
    """The parameters that a solver accepts.

    Attributes:
        solver: name of the solver, for messages.
        required: names of the required parameters.
        defaults: values of the optional parameters when they are not given, by name.
    """

    solver: str
    required: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=dict)

    def check(self, names: Collection[str]) -> None:
        """Check the names of the parameters that a study gives.

        Args:
            names: names of the parameters.

        Raises:
            ValueError: a parameter is unknown, or a required one is missing.
        """
        takes = ", ".join([*self.required, *(f"{name} (optional)" for name in self.defaults)])
        for name in names:
            if name not in self.required and name not in self.defaults:
                remedy = did_you_mean(name, [*self.required, *self.defaults], "take it out of [parameters]")
                raise ValueError(f"parameter {name!r}: {self.solver} does not know it, it takes {takes}; {remedy}")
        for name in self.required:
            if name not in names:
                raise ValueError(f"parameter {name!r} is missing: {self.solver} takes {takes}; add it to [parameters]")

    def given(self, parameters: Mapping[str, float]) -> dict[str, float]:
        """Complete the parameters of a simulation.

        Args:
            parameters: values of the given parameters, by name.

        Returns:
            A value for every parameter of the solver, by name.

        Raises:
            ValueError: a parameter is unknown, or a required one is missing.
        """
        self.check(parameters)
        return {**{name: parameters[name] for name in self.required}, **self.defaults, **parameters}
