"""A study that is resumed with another optimizer or scheduler, and weights that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from penstock_server.study import Batch, FieldSpec, ModelSection, SampleSpec, TrainingSection
from penstock_server.training import Normaliser, Trainer
from penstock_server.training.trainer import TrainingDiverged

SPEC = SampleSpec(("a",), (FieldSpec("T", 1, (6,)),))
BATCHES = 7


def section(optimizer: dict[str, Any], scheduler: dict[str, Any] | None = None) -> TrainingSection:
    return TrainingSection.model_validate({"optimizer": optimizer, "scheduler": scheduler})


def trained(training: TrainingSection, batches: int) -> Trainer:
    trainer = Trainer(SPEC, ModelSection.model_validate({"hidden": [8]}), training, Normaliser(SPEC), device="cpu")
    rng = np.random.default_rng(0)
    for _ in range(batches):
        trainer.step(
            Batch(torch.from_numpy(rng.random((4, 1, 2))).float(), torch.from_numpy(rng.random((4, 1, 6))).float())
        )
    return trainer


@pytest.mark.parametrize(
    ("before", "after", "keeps"),
    [
        (section({"name": "adam", "lr": 1e-3}), section({"name": "adam", "lr": 0.5}), True),
        (section({"name": "adam", "lr": 1e-3}), section({"name": "Adam", "lr": 1e-3, "amsgrad": True}), False),
        (section({"name": "adam", "lr": 1e-3}), section({"name": "sgd", "lr": 1e-2, "momentum": 0.9}), False),
        (section({"name": "sgd", "lr": 1e-2}), section({"name": "sgd", "lr": 1e-2, "momentum": 0.9}), False),
        (
            section({"name": "adam", "lr": 1e-3}),
            section({"name": "adam", "lr": 1e-2}, {"name": "StepLR", "step_size": 3, "gamma": 0.5}),
            True,
        ),
        (
            section({"name": "adam"}, {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 20}),
            section({"name": "adam"}, {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 5}),
            True,
        ),
        (
            section({"name": "adam"}, {"name": "CosineAnnealingLR", "T_max": 9}),
            section({"name": "adam", "lr": 3e-3}),
            True,
        ),
    ],
)
def test_a_changed_optimizer_or_scheduler_is_applied(
    before: TrainingSection, after: TrainingSection, keeps: bool
) -> None:
    state = trained(before, BATCHES).state_dict()
    resumed = trained(after, 0)
    lost = resumed.load_state_dict(state, before)
    always = trained(after, BATCHES)
    assert resumed.learning_rate == always.learning_rate
    assert resumed.optimizer.param_groups[0].keys() == always.optimizer.param_groups[0].keys()
    assert (lost == "") is keeps
    if keeps:
        first = next(iter(state["optimizer"]["state"].values()))["exp_avg"]
        assert torch.equal(next(iter(resumed.optimizer.state.values()))["exp_avg"], first)
    else:
        assert "[training] optimizer was changed at batch 7" in lost
    for trainer in (resumed, always):
        trainer.step(Batch(torch.ones(4, 1, 2), torch.ones(4, 1, 6)))
    assert resumed.learning_rate == always.learning_rate


def test_weights_that_are_not_finite_make_no_checkpoint() -> None:
    """The loss of the last step was finite: it is taken before the step that breaks the weights."""
    trainer = trained(section({"name": "adam", "lr": 1e-3}), 1)
    with torch.no_grad():
        next(iter(trainer.model.parameters()))[0] = torch.nan
    loss = trainer.last_loss()
    assert loss is not None
    assert np.isfinite(loss)
    with pytest.raises(TrainingDiverged, match="holds NaN or infinite numbers after batch 1"):
        trainer.state_dict()
