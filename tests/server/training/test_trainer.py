import copy

import numpy as np
import pytest
import torch
from torch import nn

from penstock_server.checkpoint import load_latest, write_checkpoint
from penstock_server.study import Batch, FieldSpec, ModelSection, NamedOptions, SampleSpec, TrainingSection
from penstock_server.training import Normaliser, Trainer, resolve_device
from penstock_server.training.device import DeviceError
from penstock_server.training.optimizers import OptimizerError
from penstock_server.training.trainer import TrainingDiverged

SPEC = SampleSpec(("a",), (FieldSpec("T", 1, (6,)), FieldSpec("U", 3, (4,))))
WINDOWS = SampleSpec(("a",), (FieldSpec("T", 1, (6,)),), window=3)


def make(
    spec: SampleSpec = SPEC,
    *,
    seed: int = 0,
    optimizer: dict | None = None,
    scheduler: dict | None = None,
    **kwargs: object,
) -> Trainer:
    section = TrainingSection(
        optimizer=NamedOptions.model_validate(optimizer or {"name": "adam", "lr": 1e-2}),
        scheduler=None if scheduler is None else NamedOptions.model_validate(scheduler),
        loss=str(kwargs.pop("loss", "mse")),
    )
    model = ModelSection.model_validate({"hidden": [16]})
    return Trainer(spec, model, section, Normaliser(spec), device="cpu", seed=seed, **kwargs)  # type: ignore[arg-type]


def samples(spec: SampleSpec, n: int, seed: int = 0) -> Batch:
    """Fields that depend smoothly on the parameter and the time, far from normalised units."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(1, 2, (n, 1, 1))
    time = np.arange(spec.window)[None, :, None] * 0.1 + rng.uniform(0, 1, (n, 1, 1))
    targets = 300 + 50 * np.sin(a * np.linspace(1, 2, spec.width) + time)
    inputs = np.concatenate([np.broadcast_to(a, time.shape), time], axis=2)
    return Batch(torch.from_numpy(inputs).float(), torch.from_numpy(targets).float())


def feed(trainer: Trainer, batch: Batch) -> None:
    trainer.normaliser.update(batch.inputs.numpy(), batch.targets.numpy())


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])


@pytest.mark.parametrize("spec", [SPEC, WINDOWS])
def test_training_learns_and_predicts_in_raw_units(spec: SampleSpec) -> None:
    trainer, batch = make(spec), samples(spec, 256)
    feed(trainer, batch)
    assert trainer.last_loss() is None
    for start in [*range(0, 256, 32)] * 60:
        trainer.step(Batch(batch.inputs[start : start + 32], batch.targets[start : start + 32]))
    assert trainer.batches == 480
    loss = trainer.last_loss()
    assert loss is not None
    assert loss < 0.05
    held_out = samples(spec, 50, seed=1)
    state = held_out.targets[:, -2] if spec.window > 1 else None
    prediction = trainer.predict(held_out.inputs[:, -1], state)
    true = held_out.targets[:, -1]
    assert prediction.dtype == torch.float32
    assert float(torch.linalg.vector_norm(prediction - true) / torch.linalg.vector_norm(true - true.mean())) < 0.2


def test_a_window_is_trained_by_its_transitions_from_true_states() -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    trainer, batch = make(WINDOWS), samples(WINDOWS, 4)
    trainer.model.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments))
    trainer.step(batch)
    ((inputs, state),) = seen
    assert torch.equal(inputs, batch.inputs[:, 1:].reshape(8, 2))  # the time of the step to predict
    assert torch.equal(state, batch.targets[:, :2].reshape(8, 6))


def test_predictions_in_chunks_are_the_same_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, inputs = make(), samples(SPEC, 10).inputs[:, 0]
    at_once = trainer.predict(inputs)
    monkeypatch.setattr("penstock_server.training.trainer._CHUNK_BYTES", 3 * 4 * SPEC.width)
    assert [len(rows) for rows in trainer.predict_chunks(inputs)] == [3, 3, 3, 1]
    torch.testing.assert_close(trainer.predict(inputs), at_once)
    assert trainer.predict(inputs[:0]).shape == (0, SPEC.width)


def test_gradients_are_on_between_two_chunks_of_predictions() -> None:
    trainer, inputs = make(), samples(SPEC, 10).inputs[:, 0]
    for predicted in trainer.predict_chunks(inputs):
        assert torch.is_grad_enabled()
        assert not predicted.requires_grad


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    runs = []
    for seed in (3, 3, 4):
        trainer, batch = make(seed=seed), samples(SPEC, 32)
        feed(trainer, batch)
        for _ in range(5):
            trainer.step(batch)
        runs.append(weights(trainer))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [
        ({"name": "adam", "lr": 1e-3}, {"name": "MultiStepLR", "milestones": [4, 8], "gamma": 0.5}),
        ({"name": "sgd", "lr": 1e-2, "momentum": 0.9}, {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 9}),
        ({"name": "adamw"}, {"name": "CosineAnnealingLR", "T_max": 20}),
        ({"name": "lbfgs", "lr": 0.1, "max_iter": 3}, None),
    ],
)
def test_a_restored_trainer_goes_on_bit_for_bit(tmp_path, optimizer: dict, scheduler: dict | None) -> None:  # type: ignore[no-untyped-def]
    def dropout(trainer: Trainer) -> Trainer:
        trainer.model.layers.append(nn.Dropout(0.2))  # draws from torch's global generator
        return trainer

    batch = samples(SPEC, 32)
    one = dropout(make(optimizer=optimizer, scheduler=scheduler))
    feed(one, batch)
    for _ in range(6):
        one.step(batch)
    write_checkpoint(tmp_path, 6, {"trainer": one.state_dict(), "normaliser": one.normaliser.state_dict()})
    for _ in range(6):
        one.step(batch)

    two = dropout(make(seed=99, optimizer=optimizer, scheduler=scheduler))
    parts = load_latest(tmp_path).parts
    two.load_state_dict(parts["trainer"])
    two.normaliser.load_state_dict(parts["normaliser"])
    assert two.batches == 6
    for _ in range(6):
        two.step(batch)
    assert torch.equal(weights(one), weights(two))
    assert one.learning_rate == two.learning_rate


def test_one_cycle_keeps_its_last_rate_after_its_steps() -> None:
    trainer = make(scheduler={"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 3})
    batch = samples(SPEC, 4)
    feed(trainer, batch)
    rates = []
    for _ in range(6):
        trainer.step(batch)
        rates.append(trainer.learning_rate)
    assert rates[2:] == [rates[2]] * 4


def test_a_loss_that_is_not_finite_stops_training_and_is_not_checkpointed() -> None:
    trainer, batch = make(), samples(SPEC, 4)
    feed(trainer, batch)
    trainer.step(batch)
    poisoned = Batch(batch.inputs, torch.full_like(batch.targets, torch.inf))
    with pytest.raises(
        TrainingDiverged, match=r"the loss is (inf|nan) at batch 2 with a learning rate of 0\.01: .*lower"
    ):
        trainer.step(poisoned)
    with pytest.raises(TrainingDiverged):
        trainer.state_dict()


def test_ranks_average_by_samples_and_an_idle_rank_keeps_the_same_weights() -> None:
    """Two ranks in turn, joined by hand: 3 samples and 1 must equal one rank with all 4, and a rank without any follows."""
    batch = samples(SPEC, 4)
    parts = [Batch(batch.inputs[:3], batch.targets[:3]), Batch(batch.inputs[3:], batch.targets[3:]), None]
    gathered: list[tuple[list[torch.Tensor], int]] = []

    def collect(parameters: list[nn.Parameter], number: int) -> None:
        gathered.append(([p.grad.clone() for p in parameters if p.grad is not None], number))

    alone = make(optimizer={"name": "sgd", "lr": 0.1})
    feed(alone, batch)
    for part in parts:
        rank = make(optimizer={"name": "sgd", "lr": 0.1}, gradient_average=collect)
        feed(rank, batch)
        rank.step(part)
    assert [n for _, n in gathered] == [3, 1, 0]
    mean = [
        sum(n * g for g, n in zip(grads, (3, 1, 0), strict=True)) / 4
        for grads in zip(*(g for g, _ in gathered), strict=True)
    ]

    def give(parameters: list[nn.Parameter], _number: int) -> None:
        for parameter, gradient in zip(parameters, mean, strict=True):
            parameter.grad = gradient

    idle = make(optimizer={"name": "sgd", "lr": 0.1}, gradient_average=give)
    alone.step(batch)
    idle.step(None)
    torch.testing.assert_close(weights(idle), weights(alone))
    assert idle.batches == 1
    assert idle.last_loss() is None


def test_an_optimizer_that_decides_on_its_loss_is_refused_on_several_ranks() -> None:
    with pytest.raises(OptimizerError, match="LBFGS works on one rank only"):
        make(optimizer={"name": "lbfgs"}, gradient_average=lambda _parameters, _number: None)


def test_state_of_another_model_is_refused() -> None:
    state = copy.deepcopy(make().state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        make(WINDOWS).load_state_dict(state)


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(DeviceError, match=r'device = "gpu": expected "auto"'):
        resolve_device("gpu")
    with pytest.raises(DeviceError, match=r'device = "cuda:63": torch .* finds \d+ CUDA devices'):
        resolve_device("cuda:63")
