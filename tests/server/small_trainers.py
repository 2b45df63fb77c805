"""Small models on lines, their samples, and what a training step has left in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from penstock_server.study import Batch, FieldSpec, ModelSection, NamedOptions, SampleSpec, TrainingSection
from penstock_server.training import Normaliser, Trainer

LINE = SampleSpec(("a",), (FieldSpec("u", 1, (8,)),))
WINDOWS = SampleSpec(("a",), (FieldSpec("u", 1, (8,)),), window=4)
SGD = {"name": "sgd", "lr": 0.1}
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [8]},
    "fno": {"width": 4, "modes": 3, "layers": 2},
    "unet": {"width": 4, "depth": 1},
    "mp_pde": {"hidden": 8, "layers": 2},
}


def trainer(
    spec: SampleSpec = LINE,
    model: str = "mlp",
    *,
    optimizer: dict[str, Any] | None = None,
    device: str = "cpu",
    **training: Any,
) -> Trainer:
    """A trainer whose normaliser has seen 64 samples; keyword arguments are keys of [training]."""
    section = TrainingSection(optimizer=NamedOptions(**(optimizer or SGD)), **training)
    normaliser, batch = Normaliser(spec), samples(spec, 64)
    normaliser.update(batch.inputs.numpy(), batch.targets.numpy())
    named = ModelSection.model_validate({"name": model, **MODELS[model]})
    return Trainer(spec, named, section, normaliser, device=device, seed=5)


def samples(spec: SampleSpec, number: int, seed: int = 0) -> Batch:
    """A sine that depends on the parameter and the time."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(0, 1, (number, 1, 1)).repeat(spec.window, 1)
    time = np.arange(spec.window)[None, :, None] + rng.uniform(0, 1, (number, 1, 1))
    targets = np.sin((a + 0.3 * time) * np.linspace(1, 3, spec.width))
    return Batch(torch.from_numpy(np.concatenate([a, time], 2)).float(), torch.from_numpy(targets).float())


def gradient(of: Trainer) -> torch.Tensor:
    """All gradients in one row."""
    return torch.cat([p.grad.reshape(-1) for p in of.model.parameters() if p.grad is not None])


def weights(of: Trainer) -> torch.Tensor:
    """All weights in one row."""
    return torch.cat([p.detach().reshape(-1) for p in of.model.parameters()])
