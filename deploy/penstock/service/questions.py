"""What may be asked of a surrogate, and in words why something may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

LARGEST = 1e30
"""Size of a number: float32, with which the model computes, ends at 3e38."""
MOST_TIMES = 100_000
_SHOWN = 5  # faults of one question

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
_STRICT = ConfigDict(extra="forbid", strict=True)


def question_model(names: Sequence[str]) -> type[BaseModel]:
    """Make the type of a question, which names the surrogate's parameters.

    Args:
        names: of the parameters, in the order of the model's inputs.

    Returns:
        A pydantic model with `parameters` and `times`.
    """
    # By alias, since a parameter may be named as no attribute of a model may be.
    named: dict[str, Any] = {f"p{i}": (Number, Field(alias=name)) for i, name in enumerate(names)}
    parameters = create_model("Parameters", __config__=_STRICT, __doc__="The value of every parameter.", **named)
    times = Annotated[
        list[Number] | None,
        Field(
            min_length=1,
            max_length=MOST_TIMES,
            description='Time steps, or times with [samples] time = "physical". Left out: the last one trained on.',
        ),
    ]
    return create_model(
        "Question",
        __config__=_STRICT,
        __doc__="A point of the parameter space, and times.",
        parameters=(parameters, ...),
        times=(times, None),
    )


def in_words(faults: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Put the faults of a question into one line.

    Args:
        faults: as pydantic lists them.
        names: of the surrogate's parameters.

    Returns:
        Place and reason of each; of many only the first.
    """
    lines = [_line(fault, names) for fault in faults[:_SHOWN]]
    more = len(faults) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _line(fault: Mapping[str, Any], names: Sequence[str]) -> str:
    kind, place = fault["type"], [str(part)[:80] for part in fault["loc"][1:]]
    if kind == "json_invalid":
        return f"the body is no JSON: {fault['ctx']['error']} at character {fault['loc'][-1]}"
    if not place:
        return f"the body: {fault['msg']}; expected an object with parameters and, if wanted, times"
    if place[0] == "parameters" and len(place) == 2:
        if kind == "missing":
            return f"parameter {place[1]} is missing: the model needs {', '.join(names)}"
        if kind == "extra_forbidden":
            return f"no parameter {place[1]!r}: the model has {', '.join(names)}"
    return f"{'.'.join(place)}: {fault['msg']}"
