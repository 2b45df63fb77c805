"""What a training step costs in float32 and bfloat16, with and without torch.compile, and the error that it leads to."""

from __future__ import annotations

import time
from typing import Any

import torch

from penstock_server.study import Batch, FieldSpec, ModelSection, NamedOptions, SampleSpec, TrainingSection
from penstock_server.training import Normaliser, Trainer

PRECISIONS = (("float32", False), ("bfloat16", False), ("float32", True), ("bfloat16", True))
STEPS, WARM = 400, 100
HELD_OUT = 64

STUDIES: dict[str, dict[str, Any]] = {
    # the outputs of the laptop protocol at 400 KB; a wide MLP, which has products to speed up; the neural operator
    "laptop mlp": {
        "model": {"name": "mlp", "hidden": [256, 256]},
        "small": {"hidden": [8]},
        "grid": (1000, 100),
        "window": 1,
        "batch": 64,
    },
    "wide mlp": {
        "model": {"name": "mlp", "hidden": [4096, 4096]},
        "small": {"hidden": [8]},
        "grid": (64, 64),
        "window": 1,
        "batch": 512,
    },
    "fno": {
        "model": {"name": "fno", "width": 32, "modes": 12},
        "small": {"modes": 3},
        "grid": (64, 64),
        "window": 2,
        "batch": 32,
    },
}


def step(study: str, how: tuple[str, bool], device: torch.device) -> dict[str, Any]:
    """Train on travelling waves, and measure a step and the held-out error.

    Args:
        study: one of STUDIES.
        how: precision, and whether to compile.
        device: to train on.
    """
    settings, (precision, compiled) = STUDIES[study], how
    small = device.type == "cpu"
    grid, batch = ((8, 8), 8) if small else (settings["grid"], settings["batch"])
    model = {**settings["model"], **(settings["small"] if small else {})}
    steps, warm = (20, 10) if small else (STEPS, WARM)
    spec = SampleSpec(("phase", "frequency"), (FieldSpec("u", 1, grid),), window=settings["window"])
    training = TrainingSection.model_validate(
        {
            "optimizer": NamedOptions(name="adam", lr=1e-3),  # type: ignore[call-arg]
            "batch_size": batch,
            "precision": precision,
            "compile": compiled,
        }
    )
    normaliser, data = Normaliser(spec), waves(spec, grid, 32 * batch, seed=1)
    normaliser.update(data.inputs.numpy(), data.targets.numpy())
    trainer = Trainer(spec, ModelSection.model_validate(model), training, normaliser, device=str(device), seed=3)
    module = torch.get_device_module(device)
    on_device = [Batch(part.inputs.to(device), part.targets.to(device)) for part in data.parts(32)]
    first = time.perf_counter()
    for number in range(steps):
        if number == warm:
            module.synchronize()
            begun = time.perf_counter()
        trainer.step(on_device[number % 32])
    module.synchronize()
    ended = time.perf_counter()
    return {
        "study": study,
        "precision": precision,
        "compile": compiled,
        "batch": batch,
        "step_ms": 1e3 * (ended - begun) / (steps - warm),
        "first_steps_seconds": begun - first,
        "relative_l2": held_out_error(trainer, waves(spec, grid, HELD_OUT, seed=2)),
        "warnings": trainer.warnings,
    }


def waves(spec: SampleSpec, grid: tuple[int, ...], number: int, *, seed: int) -> Batch:
    """Return travelling waves with a phase, a frequency and a time for each sample."""
    random = torch.Generator().manual_seed(seed)
    phase, frequency, start = torch.rand((3, number, 1, 1), generator=random)
    time_of = start + 0.1 * torch.arange(spec.window)[None, :, None]
    x, y = torch.meshgrid(*[torch.linspace(0, 6.2832, n) for n in grid], indexing="ij")
    place = (x + 2 * y).reshape(1, 1, -1)
    fields = torch.sin((1 + frequency) * place + 6.2832 * phase - time_of) * torch.cos(y.reshape(1, 1, -1))
    columns = [part.expand(number, spec.window, 1) for part in (phase, frequency)]
    return Batch(torch.cat([*columns, time_of], dim=2).contiguous(), fields.contiguous())


def held_out_error(trainer: Trainer, data: Batch) -> float:
    """Return the mean relative L2 error of the last time step, predicted in float32."""
    state = data.targets[:, -2] if trainer.spec.window > 1 else None
    predicted, true = trainer.predict(data.inputs[:, -1], state), data.targets[:, -1]
    norms = torch.linalg.vector_norm(predicted - true, dim=1) / torch.linalg.vector_norm(true, dim=1)
    return float(norms.mean())
