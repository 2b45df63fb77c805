"""Recordings whose every number says where it belongs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock_server.recording import Recording, RecordingWriter
from penstock_server.study import FieldSpec, SampleSpec

PARAMETERS = ("initial", "left", "right", "bottom", "top")


def value(simulation: int, step: int, width: int) -> NDArray[np.float32]:
    """Of one time step: its simulation in the thousands, its step in the units, its column in the decimals."""
    return (1000 * simulation + step + np.arange(width) / (2 * width)).astype(np.float32)


def inputs(simulation: int, time: float) -> NDArray[np.float32]:
    """Parameters within [100, 500] and the time."""
    return np.array([*(100.0 + simulation + p for p in range(len(PARAMETERS))), time], np.float32)


def writer(path: Path, simulations: int, held_out: int, *, shape: tuple[int, ...] = (3, 2)) -> RecordingWriter:
    """For simulations of one field, T; the last `held_out` of them held out."""
    return RecordingWriter(
        path,
        SampleSpec(PARAMETERS, (FieldSpec("T", 1, shape),)),
        points=np.array([inputs(i, 0.0)[:-1] for i in range(simulations)], np.float64),
        held_out=np.arange(simulations) >= simulations - held_out,
        about={"study": "heat", "seed": 3, "time": "step"},
    )


def recorded(
    path: Path, steps: Sequence[int], held_out: int = 0, *, shape: tuple[int, ...] = (3, 2), failed: Sequence[int] = ()
) -> Recording:
    """A recording of len(steps) simulations of so many time steps each."""
    out = writer(path, len(steps), held_out, shape=shape)
    for simulation, number in enumerate(steps):
        for step in range(number):
            out.add(simulation, step, inputs(simulation, step), value(simulation, step, int(np.prod(shape))))
    out.finish(~np.isin(np.arange(len(steps)), failed))
    return Recording.open(path)
