"""Which held-out time steps are predicted for pictures."""

from __future__ import annotations

from penstock_server.telemetry.snapshots import Snapshot, Snapshots
from penstock_server.training import Trainer
from penstock_server.validation.store import ValidationStore

MOST_BYTES = 16 * 2**20
"""Of the values in the file, as long as each simulation has MIN_STEPS time steps."""

MIN_STEPS, MAX_STEPS, SIMULATIONS = 3, 24, 2


def steps_for_pictures(width: int) -> int:
    """Return how many time steps of each simulation the file of pictures may have.

    Args:
        width: elements of a time step, all fields together.
    """
    return max(MIN_STEPS, min(MAX_STEPS, MOST_BYTES // (SIMULATIONS * 2 * 4 * width)))


def take_snapshots(
    store: ValidationStore,
    trainer: Trainer,
    *,
    simulations: int = SIMULATIONS,
    steps: int = MIN_STEPS,
    errors: dict[int, float] | None = None,
) -> Snapshots:
    """Predict evenly spaced time steps of the first held-out simulations.

    Args:
        store: held-out time steps.
        trainer: the model.
        simulations: number of simulations.
        steps: number of time steps of each; with 3 they are at a third, two thirds and the end.
        errors: relative L2 error of each held-out simulation; None where they are not known.

    Returns:
        The time steps; none while nothing is held.
    """
    by_simulation: dict[int, list[int]] = {}
    for simulation, step in store.predictable():
        by_simulation.setdefault(simulation, []).append(step)
    keys = []
    for simulation, held in list(by_simulation.items())[:simulations]:
        places = {max(0, round(len(held) * k / steps) - 1) for k in range(1, steps + 1)}
        keys += [(simulation, held[p]) for p in sorted(places)]
    items = []
    names = (*store.spec.parameters, "time")
    pairs = [pair for chunk in store.predict(trainer, keys) for pair in zip(*chunk, strict=True)]
    pairs = pairs[:: store.spec.bundle]  # the first time step of each bundle
    for (simulation, step), (prediction, true) in zip(keys, pairs, strict=True):
        inputs = store.time_step(simulation, step)[0].tolist()
        shown, predicted = (
            {k: v.cpu().numpy() for k, v in store.spec.split(row).items()} for row in (true, prediction)
        )
        references = {f.name: f.reference for f in store.spec.fields if f.reference}
        named = dict(zip(names, inputs, strict=True))
        items.append(Snapshot(simulation, step, named, shown, predicted, references))
    return Snapshots(trainer.batches, items, errors or {})
