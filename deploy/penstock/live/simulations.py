"""The simulations of a study as points of its parameter space, with their states and errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_client import PenstockError
from penstock_server.coordinator import make_plan, make_spares
from penstock_server.study import ParameterSpace, Study

STATES = ("waiting", "running", "finished", "failed")


@dataclass(frozen=True)
class Points:
    """The points of a study's simulations, by id.

    Attributes:
        names: the parameters: those that are numbers; seeds only where there is nothing else.
        low: lower bounds, (parameters,).
        high: upper bounds, (parameters,).
        values: (simulations, parameters).
        held_out: whether a simulation is held out, (simulations,).
        planned: simulations that the study asks for; those that follow replace failed ones.
        problem: why the points are not known; "" where they are.
    """

    names: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    values: NDArray[np.float64]
    held_out: NDArray[np.bool_]
    planned: int
    problem: str = ""


def points_of(study: Study) -> Points:
    """Work out where the simulations of a study are, as its coordinator does.

    Args:
        study: that runs or has run.
    """
    space = ParameterSpace(study.parameters, study.directory)
    shown = len(space.names) - space.seeds or len(space.names)
    names = space.names[:shown]
    try:
        values, held_out, planned = _recorded(study, names) if study.training.source is not None else _planned(study)
        problem = ""
    except (PenstockError, OSError, ValueError) as error:
        values, held_out, planned = np.empty((0, shown)), np.empty(0, dtype=bool), 0
        problem = f"The points of the simulations cannot be worked out: {error}"
    return Points(names, space.low[:shown], space.high[:shown], values[:, :shown], held_out, planned, problem)


def _planned(study: Study) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    plan = make_plan(study)
    points = [*plan, *make_spares(study)]
    values = np.array([point.parameters for point in points], dtype=np.float64)
    return values, np.array([point.validation for point in points], dtype=bool), len(plan)


def _recorded(study: Study, names: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    from penstock_server.recording import Recording  # imported here: it needs torch

    recording = Recording.open(study.training.source or "")
    if missing := set(names) - set(recording.parameters):
        raise ValueError(f"{recording.path} does not hold {', '.join(sorted(missing))}")
    columns = [recording.parameters.index(name) for name in names]
    return recording.points[:, columns], recording.held_out, 0
