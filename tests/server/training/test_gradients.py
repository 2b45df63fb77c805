"""What [training] gradient_clip and accumulate do to the gradient of a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_trainers import LINE, SGD, WINDOWS, gradient, samples, trainer, weights
from torch import nn

from penstock_server.checkpoint import load_latest, write_checkpoint
from penstock_server.study import ModelSection, NamedOptions, SampleSpec, TrainingSection
from penstock_server.training import Normaliser, Trainer
from penstock_server.training.ensemble import Ensemble, Separate, Stacked
from penstock_server.training.trainer import TrainingDiverged


@given(number=st.integers(5, 40), accumulate=st.integers(2, 5), spec=st.sampled_from([LINE, WINDOWS]))
@settings(max_examples=15)
def test_the_parts_of_a_batch_have_the_gradient_of_the_whole(number: int, accumulate: int, spec: SampleSpec) -> None:
    batch = samples(spec, number)
    pushforward = 2 if spec.window > 1 else 0
    whole = trainer(spec, pushforward=pushforward)
    parts = trainer(spec, pushforward=pushforward, accumulate=accumulate)
    for one in (whole, parts):
        torch.manual_seed(number)
        one.step(batch)
    torch.testing.assert_close(gradient(parts), gradient(whole), rtol=1e-4, atol=1e-6)
    assert parts.last_loss() == pytest.approx(whole.last_loss(), rel=1e-5)
    assert parts.batches == 1


def test_a_model_sees_one_part_at_a_time() -> None:
    seen: list[int] = []
    one = trainer(accumulate=4)
    one.model.register_forward_pre_hook(lambda _module, arguments: seen.append(len(arguments[0])))
    one.step(samples(LINE, 10))
    one.step(samples(LINE, 2))  # the last batch of a study may be smaller
    assert seen == [3, 3, 3, 1, 1, 1]


def test_a_study_with_parts_is_resumed_bit_for_bit(tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = {"optimizer": {"name": "adam", "lr": 1e-2}, "accumulate": 3, "gradient_clip": 0.1, "pushforward": 1}
    one, two = trainer(WINDOWS, **settings), trainer(WINDOWS, **settings)
    for number in range(4):
        one.step(samples(WINDOWS, 7, number))
    write_checkpoint(tmp_path, 1, {"trainer": one.state_dict()})
    two.load_state_dict(load_latest(tmp_path).parts["trainer"])
    for number in range(4, 8):
        for each in (one, two):
            torch.set_rng_state(torch.Generator().manual_seed(number).get_state())
            each.step(samples(WINDOWS, 7, number))
    assert torch.equal(weights(one), weights(two))


def test_a_long_gradient_is_shortened_and_a_short_one_is_not() -> None:
    batch = samples(LINE, 16)
    free, clipped, wide = trainer(), trainer(gradient_clip=0.01), trainer(gradient_clip=1e3)
    for one in (free, clipped, wide):
        one.step(batch)
    assert float(gradient(free).norm()) > 0.02
    assert float(gradient(clipped).norm()) == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(gradient(clipped) / 0.01, gradient(free) / gradient(free).norm(), rtol=1e-3, atol=1e-5)
    assert torch.equal(gradient(wide), gradient(free))


def test_the_gradient_is_clipped_after_it_is_averaged_over_the_ranks() -> None:
    def average(parameters: list[nn.Parameter], _samples: int) -> None:
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.fill_(1.0)

    section = TrainingSection(optimizer=NamedOptions(**SGD), gradient_clip=0.5)
    model = ModelSection.model_validate({"hidden": [8]})
    for batch in (samples(LINE, 4), None):  # a rank without samples makes the same step
        one = Trainer(LINE, model, section, Normaliser(LINE), device="cpu", gradient_average=average)
        one.step(batch)
        assert float(gradient(one).norm()) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("optimizer", [SGD, {"name": "adafactor"}])
def test_members_are_clipped_each_by_its_own_norm(optimizer: dict[str, Any]) -> None:
    """The second optimizer keeps the members separate."""
    batch, free = samples(LINE, 16), trainer(members=3, optimizer=optimizer)
    free.step(batch)
    norms = sorted(_norms(free))
    limit = (norms[0] + norms[1]) / 2
    clipped = trainer(members=3, optimizer=optimizer, gradient_clip=limit)
    clipped.step(batch)
    assert sorted(_norms(clipped)) == pytest.approx([norms[0], limit, limit], rel=1e-3)


def _norms(of: Trainer) -> list[float]:
    assert isinstance(of.model, Ensemble)
    each = of.model.each
    if isinstance(each, Stacked):
        rows = [p.grad.flatten(1) for p in each.parameters() if p.grad is not None]
        return [float(norm) for norm in torch.cat(rows, 1).norm(dim=1)]
    assert isinstance(each, Separate)
    return [float(nn.utils.get_total_norm([p.grad for p in m.parameters() if p.grad is not None])) for m in each.models]


@pytest.mark.parametrize("members", [1, 2])
def test_a_gradient_that_is_not_finite_still_ends_training(members: int) -> None:
    one, batch = trainer(gradient_clip=0.1, members=members), samples(LINE, 4)
    one.step(batch)
    with torch.no_grad():
        next(one.model.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(TrainingDiverged):
        one.step(batch)
