"""Training on a GPU gives what training on the CPU gives. benchmarks/gpu/run.sh runs these tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_trainers import LINE, MODELS, WINDOWS, gradient, samples, trainer, weights

from penstock_server.checkpoint import load_latest, write_checkpoint
from penstock_server.study import Batch, SampleSpec
from penstock_server.training import Trainer

pytestmark = pytest.mark.gpu

CASES = [(name, spec) for name in MODELS for spec in (LINE, WINDOWS) if (name, spec) != ("mp_pde", LINE)]
ADAM = {"name": "adam", "lr": 3e-3}


def pinned(batch: Batch) -> Batch:
    return Batch(batch.inputs.pin_memory(), batch.targets.pin_memory())


def close(one: Trainer, other: Trainer, tolerance: float = 1e-3) -> None:
    here, there = weights(one).cpu(), weights(other).cpu()
    assert float((here - there).norm() / there.norm()) < tolerance


@pytest.mark.parametrize(("model", "spec"), CASES)
@pytest.mark.parametrize("members", [1, 3])
def test_the_weights_are_those_of_the_cpu(model: str, spec: SampleSpec, members: int) -> None:
    settings = {"members": members, "gradient_clip": 0.5, "accumulate": 2}
    on_cpu, on_gpu = (trainer(spec, model, device=device, **settings) for device in ("cpu", "cuda"))
    for number in range(10):
        batch = samples(spec, 8, number)
        on_cpu.step(batch)
        on_gpu.step(batch if number % 2 else pinned(batch))
    close(on_gpu, on_cpu)
    held_out = samples(spec, 6, 99)
    state = held_out.targets[:, -2] if spec.window > 1 else None
    torch.testing.assert_close(
        on_gpu.predict(held_out.inputs[:, -1], state), on_cpu.predict(held_out.inputs[:, -1], state), rtol=0, atol=0.01
    )


def test_pinned_memory_may_be_overwritten_once_a_step_has_returned() -> None:
    """Batches large enough that the copy of one is under way while the steps before it compute."""
    fresh, reused = (trainer(LINE, optimizer=ADAM, device="cuda") for _ in range(2))
    memory = pinned(samples(LINE, 200_000))
    for number in range(12):
        batch = samples(LINE, 200_000, number)
        fresh.step(batch)
        memory.inputs.copy_(batch.inputs)
        memory.targets.copy_(batch.targets)
        reused.step(memory)
        memory.targets.fill_(torch.nan)
    close(reused, fresh, 1e-5)


def test_batches_that_are_on_the_gpu_need_no_copy() -> None:
    from_host, from_gpu = (trainer(LINE, optimizer=ADAM, device="cuda") for _ in range(2))
    for number in range(12):
        batch = samples(LINE, 64, number)
        from_host.step(batch)
        from_gpu.step(Batch(batch.inputs.cuda(), batch.targets.cuda()))
    close(from_gpu, from_host, 1e-5)


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    settings = {"optimizer": ADAM, "device": "cuda", "accumulate": 2, "precision": "bfloat16", "pushforward": 1}
    whole, resumed = trainer(WINDOWS, **settings), trainer(WINDOWS, **settings)
    for number in range(5):
        whole.step(samples(WINDOWS, 16, number))
    write_checkpoint(tmp_path, 1, {"trainer": whole.state_dict()})
    resumed.load_state_dict(load_latest(tmp_path).parts["trainer"])
    for one in (whole, resumed):
        torch.manual_seed(7)
        for number in range(5, 10):
            one.step(samples(WINDOWS, 16, number))
    close(resumed, whole, 1e-4)
    on_cpu = trainer(WINDOWS, optimizer=ADAM)
    on_cpu.load_state_dict(load_latest(tmp_path).parts["trainer"])  # as `penstock export` does
    assert on_cpu.batches == 5


@pytest.mark.parametrize("model", MODELS)
def test_bfloat16_has_the_gradient_of_float32_to_its_digits(model: str) -> None:
    full, low = (trainer(WINDOWS, model, device="cuda", precision=p) for p in ("float32", "bfloat16"))
    for one in (full, low):
        one.step(samples(WINDOWS, 32))
    assert float((gradient(low) - gradient(full)).norm() / gradient(full).norm()) < 0.1
    assert not torch.equal(gradient(low), gradient(full))


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own modules, and of what it could do
@pytest.mark.parametrize(("model", "members"), [("mlp", 1), ("mlp", 3), ("fno", 1), ("unet", 1)])
def test_compiled_training_is_that_of_the_model_itself(model: str, members: int) -> None:
    settings = {"members": members, "batch_size": 16, "device": "cuda"}
    plain, compiled = trainer(LINE, model, **settings), trainer(LINE, model, compile=True, **settings)
    for number, size in enumerate((16, 16, 5, 16)):
        for one in (plain, compiled):
            one.step(samples(LINE, size, number))
    assert compiled.warnings == []
    close(compiled, plain)
