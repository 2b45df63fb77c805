"""What a built-in solver is told: the parameters it needs, those it can do without, and a clear error about any other."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence


def known_parameters(
    solver: str,
    parameters: Mapping[str, float],
    required: Sequence[str] = (),
    defaults: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """A value for each parameter of a solver, in the order required, then defaults.

    Args:
        solver: its name, for the message.
        parameters: what the simulation was given.
        required: parameters that must be given.
        defaults: parameters that need not be given, and their values then.

    Raises:
        ValueError: a parameter that the solver does not know, or one that it needs and was not given.
    """
    optional = defaults or {}
    takes = ", ".join([*required, *(f"{name} (optional)" for name in optional)])
    for name in parameters:
        if name not in required and name not in optional:
            near = difflib.get_close_matches(name, [*required, *optional], 1)
            hint = f"; did you mean {near[0]!r}?" if near else "; take it out of [parameters]"
            raise ValueError(f"parameter {name!r}: {solver} does not know it, it takes {takes}{hint}")
    for name in required:
        if name not in parameters:
            raise ValueError(f"parameter {name!r} is missing: {solver} takes {takes}; add it to [parameters]")
    return {**{name: parameters[name] for name in required}, **optional, **parameters}
