"""Rollouts: the model predicts a held-out simulation from its first time steps, each prediction being its next state.

The error of single steps measures how well the model has learnt its target; the error of a rollout is what a user gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from penstock_server.training import ALONE, RankGroup, Trainer
from penstock_server.validation.norms import Errors, Norms
from penstock_server.validation.store import ValidationStore


@dataclass(frozen=True)
class RolloutResult:
    """Errors of time steps predicted from the first `bundle` time steps of each held-out simulation.

    Attributes:
        errors: errors over all predicted time steps.
        simulations: number of simulations.
        steps: numbers of the predicted time steps, ascending.
        relative_l2_by_step: mean relative L2 error at each of `steps`, over simulations and fields.
    """

    errors: Errors
    simulations: int
    steps: tuple[int, ...]
    relative_l2_by_step: tuple[float, ...]

    def figures(self) -> dict[str, Any]:
        """Return the result as plain data for report.json and metrics.jsonl."""
        errors = asdict(self.errors)
        kept = ("mse", "relative_l2", "relative_l2_p99", "relative_l2_max", "runaway", "rmse_to_std")
        return {
            **{key: errors[key] for key in kept},
            "simulations": self.simulations,
            "steps": list(self.steps),
            "relative_l2_by_step": list(self.relative_l2_by_step),
        }


def roll_out(store: ValidationStore, trainer: Trainer, group: RankGroup = ALONE) -> RolloutResult | None:
    """Predict every held-out simulation as far as it has arrived without a gap.

    Errors are measured on whole bundles: with `bundle` B on the time steps from B to the last whole multiple of B. Each
    rank of the group predicts the simulations that it holds; all ranks get the same result.

    Args:
        store: held-out time steps of this rank.
        trainer: the model.
        group: trainer ranks that evaluate together.

    Returns:
        The errors, or None where no simulation has two bundles.
    """
    bundle = store.spec.bundle
    lengths = {s: length // bundle * bundle for s, length in store.unbroken().items() if length >= 2 * bundle}
    simulations = sorted(lengths)
    own = [np.empty((0, 1 + Norms.columns(store.spec)))]  # a row for each prediction: time step and norms
    for start in range(0, len(simulations), trainer.chunk_rows):
        chunk = simulations[start : start + trainer.chunk_rows]
        for step, norms in _follow(store, trainer, {s: lengths[s] for s in chunk}):
            own.append(np.column_stack([np.full(len(norms.errors), step), norms.rows()]))
    rows = np.concatenate(group.gather(np.concatenate(own)))
    followed = int(group.sum([len(simulations)])[0])
    if not followed:
        return None
    by_step = {int(step): Norms.from_rows(rows[rows[:, 0] == step, 1:], store.spec) for step in np.unique(rows[:, 0])}
    summaries = [norms.summary(store.spec) for norms in by_step.values()]
    everything = Norms.join(list(by_step.values()))
    return RolloutResult(
        everything.summary(store.spec), followed, tuple(by_step), tuple(s.relative_l2 for s in summaries)
    )


def _follow(store: ValidationStore, trainer: Trainer, lengths: dict[int, int]) -> Iterator[tuple[int, Norms]]:
    """Yield (time step, norms over the simulations that reach it); lengths in time steps, multiples of the bundle."""
    spec, bundle = store.spec, store.spec.bundle
    alive = list(lengths)
    state = torch.stack([_bundle(store, s, 0) for s in alive])
    for first in range(bundle, max(lengths.values()), bundle):
        going_on = [i for i, s in enumerate(alive) if lengths[s] > first]
        alive, state = [alive[i] for i in going_on], state[going_on]
        inputs = torch.stack([store.time_step(s, first)[0] for s in alive])
        state = trainer.predict(inputs, state)
        rows = state.reshape(len(alive), bundle, spec.width)
        for k in range(bundle):
            true = torch.stack([store.time_step(s, first + k)[1] for s in alive])
            yield first + k, Norms.of(spec, rows[:, k], true, store.truth_norms([(s, first + k) for s in alive]))


def _bundle(store: ValidationStore, simulation: int, first: int) -> torch.Tensor:
    steps = np.arange(first, first + store.spec.bundle)
    return torch.cat([store.time_step(simulation, int(step))[1] for step in steps])
