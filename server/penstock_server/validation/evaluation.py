"""The errors of the surrogate on the held-out simulations."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.training import ALONE, RankGroup, Trainer
from penstock_server.validation.members import MemberErrors, evaluate_members
from penstock_server.validation.norms import Errors, Norms
from penstock_server.validation.rollout import RolloutResult, roll_out
from penstock_server.validation.store import ValidationStore


@dataclass(frozen=True)
class ValidationResult:
    """Errors on held-out samples.

    Attributes:
        errors: errors of single time steps; with window > 1 each is predicted from the true time steps before it.
        rollout: with window > 1, errors of whole simulations predicted from their first time steps; None otherwise.
        seconds: duration of the evaluation.
        by_simulation: relative L2 error of each simulation, the mean over its time steps and fields.
        members: of an ensemble, the error of each member and the spread; None for one model.
    """

    errors: Errors
    rollout: RolloutResult | None
    seconds: float
    by_simulation: dict[int, float] = field(default_factory=dict)
    members: MemberErrors | None = None

    @property
    def mse(self) -> float:
        """Mean squared error of single time steps."""
        return self.errors.mse

    @property
    def relative_l2(self) -> float:
        """Mean relative L2 error of single time steps."""
        return self.errors.relative_l2

    def figures(self) -> dict[str, Any]:
        """Return the errors as plain data for report.json, metrics.jsonl and the model card."""
        rollout = None if self.rollout is None else self.rollout.figures()
        members = {} if self.members is None else {"members": self.members.figures()}
        return {**asdict(self.errors), "rollout": rollout, **members}


def evaluate(store: ValidationStore, trainer: Trainer, group: RankGroup = ALONE) -> ValidationResult:
    """Measure the surrogate's errors on all time steps that are held now.

    Each rank of the group predicts the time steps that it holds; all ranks get the same result.

    Args:
        store: the held-out time steps of this rank.
        trainer: the model, with its normalisation and device.
        group: the trainer ranks that evaluate together.

    Returns:
        The errors over the held-out time steps of all ranks.

    Raises:
        ValueError: no time step can be predicted yet.
    """
    start = time.perf_counter()
    keys = store.predictable()
    of_truth = store.truth_norms(
        [(simulation, step + k) for simulation, step in keys for k in range(store.spec.bundle)]
    )
    own = [Norms.none(store.spec)]
    done = 0
    for prediction, true in store.predict(trainer, keys):
        own.append(Norms.of(store.spec, prediction, true, of_truth[done : done + len(true)]))
        done += len(true)
    simulations = np.repeat(np.array([simulation for simulation, _ in keys], dtype=np.float64), store.spec.bundle)
    gathered = np.concatenate(group.gather(np.column_stack([simulations, Norms.join(own).rows()])))
    everything = Norms.from_rows(gathered[:, 1:], store.spec)
    if not len(everything.errors):
        need = "a time step" if store.spec.window == 1 else f"{2 * store.spec.bundle} consecutive time steps"
        raise ValueError(f"no validation without {need} of a held-out simulation: {len(store)} held")
    rollout = roll_out(store, trainer, group) if store.spec.window > 1 else None
    members = evaluate_members(store, trainer, keys, of_truth, group) if trainer.members > 1 else None
    errors = everything.summary(store.spec)
    by_simulation = _by_simulation(gathered[:, 0], everything.ratios())
    return ValidationResult(errors, rollout, time.perf_counter() - start, by_simulation, members)


def _by_simulation(simulations: NDArray[np.float64], ratios: NDArray[np.float64]) -> dict[int, float]:
    ids, place = np.unique(simulations, return_inverse=True)
    means = np.bincount(place, weights=ratios.mean(axis=1)) / np.bincount(place)
    return {int(number): float(mean) for number, mean in zip(ids, means, strict=True)}
