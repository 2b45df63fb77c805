"""Bundles of time steps, the pushforward trick, and rollouts: checked on models whose every answer is known."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from penstock_server.study import Batch, FieldSpec, ModelSection, SampleSpec, TrainingSection
from penstock_server.trainer_rank.metrics_log import MetricsLog
from penstock_server.training import Normaliser, Trainer
from penstock_server.training.forward import Forward
from penstock_server.validation import ValidationStore, evaluate
from penstock_server.validation.norms import RUNAWAY


class Recall(nn.Module):
    """Answers with a multiple of the state, and remembers what it was asked."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.asked: list[tuple[Tensor, Tensor, bool]] = []

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        self.asked.append((inputs.clone(), state.detach().clone(), torch.is_grad_enabled()))
        return self.factor * state


def spec_of(window: int, bundle: int) -> SampleSpec:
    return SampleSpec(("a",), (FieldSpec("u", 1, (5,)),), window, bundle)


def trainer_of(spec: SampleSpec, model: nn.Module, **training: object) -> Trainer:
    normaliser = Normaliser(spec, inputs=False, targets=False)
    trainer = Trainer(spec, ModelSection(), TrainingSection(**training), normaliser, device="cpu", seed=3)  # type: ignore[arg-type]
    trainer.model = model
    trainer._forward = Forward(model, trainer.device, TrainingSection(**training))  # type: ignore[arg-type]
    return trainer


def batch_of(spec: SampleSpec, samples: int = 2) -> Batch:
    """Samples whose time step k is the number 100 x sample + k everywhere, at time k."""
    steps = torch.arange(spec.window, dtype=torch.float32)
    values = 100.0 * torch.arange(samples)[:, None] + steps
    inputs = torch.stack([torch.full((samples, spec.window), 0.5), steps.expand(samples, -1)], dim=2)
    return Batch(inputs, values[..., None].expand(-1, -1, spec.width).contiguous())


@settings(max_examples=30, deadline=None)
@given(bundle=st.integers(1, 4), bundles=st.integers(2, 5), samples=st.integers(1, 3))
def test_each_bundle_is_predicted_from_the_true_one_before(bundle: int, bundles: int, samples: int) -> None:
    spec = spec_of(bundle * bundles, bundle)
    model = Recall(1.0)
    batch = batch_of(spec, samples)
    trainer_of(spec, model).step(batch)
    ((inputs, state, _),) = model.asked
    rows = batch.targets.reshape(samples, bundles, -1)
    assert torch.equal(state, rows[:, :-1].reshape(-1, spec.state_width))
    # The time it is told is that of the first time step it must predict.
    assert inputs[:, 1].tolist() == [bundle * (b + 1) for _ in range(samples) for b in range(bundles - 1)]


@settings(max_examples=20, deadline=None)
@given(pushforward=st.integers(1, 3), bundle=st.integers(1, 3), further=st.integers(0, 2))
def test_pushforward_steps_carry_no_gradient_and_keep_each_target_at_its_time(
    pushforward: int, bundle: int, further: int
) -> None:
    bundles = pushforward + 2 + further
    spec = spec_of(bundle * bundles, bundle)
    model = Recall(2.0)
    trainer = trainer_of(spec, model, pushforward=pushforward, optimizer={"name": "sgd", "lr": 0.0})
    depths = set()
    for _ in range(40):
        model.asked.clear()
        trainer.step(batch_of(spec, 1))
        depth = len(model.asked) - 1
        depths.add(depth)
        assert [grad for _, _, grad in model.asked] == [False] * depth + [True]
        for (_, before, _), (_, after, _) in pairwise(model.asked):
            assert torch.equal(after, 2.0 * before)
        times = model.asked[-1][0][:, 1].tolist()
        assert times == [bundle * b for b in range(1 + depth, bundles)]
    assert depths == set(range(pushforward + 1))


def test_pushforward_repeats_with_the_seed() -> None:
    def depths() -> list[int]:
        spec, model = spec_of(5, 1), Recall(1.0)
        trainer = trainer_of(spec, model, pushforward=3, optimizer={"name": "sgd", "lr": 0.0})
        seen = []
        for _ in range(20):
            model.asked.clear()
            trainer.step(batch_of(spec))
            seen.append(len(model.asked))
        return seen

    assert depths() == depths()


def held_out(spec: SampleSpec, lengths: list[int]) -> ValidationStore:
    """Simulations that double from step to step, beginning at 1, 2, 3, ..."""
    store = ValidationStore(spec)
    for simulation, length in enumerate(lengths):
        for step in range(length):
            value = np.full(spec.width, (simulation + 1) * 2.0**step, np.float32)
            store.add(simulation, step, np.array([0.5, step], np.float32), value)
    return store


def test_a_model_that_knows_the_dynamics_rolls_out_without_error() -> None:
    spec = spec_of(2, 1)
    result = evaluate(held_out(spec, [6, 4, 1]), trainer_of(spec, Recall(2.0)))
    rollout = result.rollout
    assert rollout is not None
    assert (rollout.simulations, rollout.steps) == (2, (1, 2, 3, 4, 5))
    assert rollout.errors.relative_l2 == 0
    assert rollout.errors.samples == 5 + 3


def test_the_error_of_a_rollout_compounds_where_single_steps_stay_as_good() -> None:
    spec = spec_of(2, 1)
    result = evaluate(held_out(spec, [8, 8]), trainer_of(spec, Recall(2.2)))
    assert result.relative_l2 == pytest.approx(0.1, rel=1e-5)
    rollout = result.rollout
    assert rollout is not None
    assert rollout.relative_l2_by_step == pytest.approx([1.1**k - 1 for k in range(1, 8)], rel=1e-4)


def test_bundles_roll_out_bundle_by_bundle() -> None:
    spec = spec_of(4, 2)
    result = evaluate(held_out(spec, [7, 4]), trainer_of(spec, Recall(4.0)))  # two steps on: four times as much
    assert result.errors.samples == 4 + 2  # the seventh step of the first makes no whole bundle
    assert result.rollout is not None
    assert result.rollout.steps == (2, 3, 4, 5)
    assert result.rollout.errors.relative_l2 == 0


def test_a_rollout_that_explodes_has_a_finite_error_that_json_can_hold(tmp_path: Path) -> None:
    spec = spec_of(2, 1)
    result = evaluate(held_out(spec, [40]), trainer_of(spec, Recall(1e4)))
    rollout = result.rollout
    assert rollout is not None
    assert rollout.errors.relative_l2_max == pytest.approx(RUNAWAY)
    assert rollout.errors.runaway > 0
    log = MetricsLog(tmp_path, append=False)
    log.validation(1.0, 5, result)
    log.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["rollout"]["relative_l2_by_step"][-1] == pytest.approx(RUNAWAY)
    assert line["rollout_relative_l2"] == rollout.errors.relative_l2


def test_a_gap_ends_what_can_be_followed() -> None:
    spec = spec_of(2, 1)
    store = held_out(spec, [3])
    store.add(0, 5, np.array([0.5, 5], np.float32), np.ones(5, np.float32))
    assert store.unbroken() == {0: 3}
    result = evaluate(store, trainer_of(spec, Recall(2.0)))
    assert result.rollout is not None
    assert result.rollout.steps == (1, 2)
