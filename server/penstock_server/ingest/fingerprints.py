"""Whether different parameters give the same fields: checksums of time steps of the first simulations."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

FIRST = 16
"""Simulations with lower ids are watched."""
_MOST = 10_000  # time steps of each
_ALL_BELOW, _EVERY = 32, 16  # the first ones, and some of the later ones: checksums of large fields take long

Floats = NDArray[np.float32]


@dataclass
class Fingerprint:
    """What one simulation has sent.

    Attributes:
        parameters: those that the model sees.
        steps: checksum of the fields, by time step.
    """

    parameters: tuple[float, ...]
    steps: dict[int, int] = field(default_factory=dict)


class Fingerprints:
    """The fingerprints of the first simulations, of the time steps that one trainer rank has received."""

    def __init__(self) -> None:
        self.simulations: dict[int, Fingerprint] = {}

    def add(self, simulation: int, step: int, inputs: Floats, targets: Floats) -> None:
        """Take a time step into account.

        Args:
            simulation: its simulation's id.
            step: number of the time step.
            inputs: shape (n_inputs,).
            targets: shape (width,).
        """
        if simulation >= FIRST or step >= _MOST or (step >= _ALL_BELOW and step % _EVERY):
            return
        known = self.simulations.setdefault(simulation, Fingerprint(tuple(inputs[:-1].tolist())))
        known.steps[step] = zlib.crc32(np.ascontiguousarray(targets).data)

    def add_steps(
        self,
        simulation: int,
        steps: NDArray[np.int64],
        inputs: Floats,
        targets: Floats,
        rows: NDArray[np.int64],
    ) -> None:
        """Take a run of time steps into account.

        Args:
            simulation: their simulation's id.
            steps: number of each, (n,).
            inputs: shape (m, n_inputs).
            targets: shape (m, width).
            rows: row of each time step in `inputs` and `targets`, (n,).
        """
        if simulation < FIRST:
            for step, row in zip(steps.tolist(), rows.tolist(), strict=True):
                self.add(simulation, step, inputs[row], targets[row])


def merged(ranks: Iterable[dict[int, Fingerprint]]) -> dict[int, Fingerprint]:
    """Put the fingerprints of several ranks together, each of which has other time steps."""
    out: dict[int, Fingerprint] = {}
    for rank in ranks:
        for simulation, fingerprint in rank.items():
            known = out.setdefault(simulation, Fingerprint(fingerprint.parameters))
            known.steps |= fingerprint.steps
    return out


def without_effect(names: Sequence[str], fingerprints: dict[int, Fingerprint]) -> str:
    """Tell which parameters have no effect on the fields; "" where none is known to have none.

    Initial fields may be the same, so that two simulations must share a later time step.

    Args:
        names: parameters that the model sees.
        fingerprints: by simulation.
    """
    watched = [(i, f) for i, f in sorted(fingerprints.items()) if max(f.steps, default=0) > 0]
    pairs = [(a, b) for a, b in combinations(watched, 2) if a[1].parameters != b[1].parameters]
    same = [(a, b) for a, b in pairs if _identical(a[1].steps, b[1].steps)]
    if not same:
        return ""
    if len(same) == len(pairs):
        return (
            f"no parameter has any effect: the first {len(watched)} simulations have different values of "
            f"{', '.join(names)} and identical fields; see that the solver reads them"
        )
    differing = {n for a, b in same for n, x, y in zip(names, a[1].parameters, b[1].parameters, strict=True) if x != y}
    (first, _), (second, _) = same[0]
    return (
        f"{', '.join(n for n in names if n in differing)} may have no effect: simulations {first} and {second} differ "
        f"there and have identical fields ({len(same)} of {len(pairs)} pairs do); see that the solver reads it"
    )


def _identical(one: dict[int, int], other: dict[int, int]) -> bool:
    shared = one.keys() & other.keys()
    return max(shared, default=0) > 0 and all(one[step] == other[step] for step in shared)
