"""The members of an ensemble on the held-out time steps: the error of each, and how far their spread tells the error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.training import ALONE, RankGroup, Trainer
from penstock_server.validation.norms import Norms
from penstock_server.validation.store import ValidationStore


@dataclass(frozen=True)
class MemberErrors:
    """An ensemble on held-out samples.

    The spread is the standard deviation over the members, at each point of each component.

    Attributes:
        relative_l2: mean relative L2 error of each member, as `Errors.relative_l2` is that of their mean.
        spread: mean over time steps and fields of ||spread|| / ||true||.
        spread_to_error: root mean square spread / root mean square error of the members' mean, mean over the fields. 1
            means that the spread is as large as the error; below 1 the members agree more than they should.
        correlation: rank correlation (Spearman) of spread and error over time steps, mean over the fields; None for less
            than three time steps.
    """

    relative_l2: tuple[float, ...]
    spread: float
    spread_to_error: float | None
    correlation: float | None

    def figures(self) -> dict[str, Any]:
        """Return the figures as plain data for report.json, metrics.jsonl and the model card."""
        return {**asdict(self), "relative_l2": list(self.relative_l2)}


def evaluate_members(
    store: ValidationStore,
    trainer: Trainer,
    keys: list[tuple[int, int]],
    of_truth: NDArray[np.float64],
    group: RankGroup = ALONE,
) -> MemberErrors:
    """Evaluate the members of an ensemble, all ranks of the group together.

    Args:
        store: the held-out time steps of this rank.
        trainer: of several members.
        keys: what can be predicted on this rank, from `store.predictable`.
        of_truth: the norms of the true time steps, in the order of their prediction.
        group: the trainer ranks that evaluate together.

    Raises:
        ValueError: no rank can predict a time step.
    """
    spec = store.spec
    none = Norms.none(spec)
    of_members = [[none] for _ in range(trainer.members)]
    of_mean, of_spread = [none], [none]
    done = 0
    for predictions, true in store.predict(trainer, keys, each_member=True):
        truth = of_truth[done : done + len(true)]
        done += len(true)
        for norms, own in zip(of_members, predictions, strict=True):
            norms.append(Norms.of(spec, own, true, truth))
        of_mean.append(Norms.of(spec, predictions.mean(0), true, truth))
        of_spread.append(Norms.of_difference(spec, predictions.std(0), truth))

    def of_all_ranks(own: list[Norms]) -> Norms:
        return Norms.join([Norms.from_rows(rows, spec) for rows in group.gather(Norms.join(own).rows())])

    members = [of_all_ranks(norms) for norms in of_members]
    mean, spread = of_all_ranks(of_mean), of_all_ranks(of_spread)
    ratios = _rms(spread.errors) / np.maximum(_rms(mean.errors), np.finfo(np.float64).tiny)
    correlations = [_rank_correlation(spread.errors[:, i], mean.errors[:, i]) for i in range(len(spec.fields))]
    known = [value for value in correlations if value is not None]
    return MemberErrors(
        tuple(norms.summary(spec).relative_l2 for norms in members),
        spread=float((spread.errors / spread.scale()).mean()),
        spread_to_error=float(ratios.mean()) if np.isfinite(ratios).all() else None,
        correlation=sum(known) / len(known) if known else None,
    )


def _rms(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.sqrt(np.mean(np.square(norms), axis=0))
    return means


def _rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation; None where it has no meaning."""
    if len(one) < 3 or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return None
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    if min(np.ptp(one), np.ptp(other)) == 0.0:
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
