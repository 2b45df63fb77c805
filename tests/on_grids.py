"""What the tests of models on grids share: random smooth fields, translations, and operators to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penstock_server.study import SampleSpec


def smooth_rows(number: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random scalar fields of wave numbers below 4 and unit variance, as rows (number, points)."""
    axes = tuple(range(1, len(shape) + 1))
    spectrum = torch.fft.fftn(torch.randn(number, *shape, generator=generator), dim=axes)
    for axis, n in enumerate(shape):
        kept = (torch.fft.fftfreq(n) * n).abs() < 4
        spectrum = spectrum * kept.reshape(-1, *[1] * (len(shape) - 1 - axis))
    fields = torch.fft.ifftn(spectrum, dim=axes).real
    return (fields / fields.std()).flatten(1)


def shifted(spec: SampleSpec, rows: Tensor, by: tuple[int, ...]) -> Tensor:
    """State rows of one field, every time step of them rolled around the torus."""
    (field,) = spec.fields
    axes = tuple(range(2, 2 + len(field.shape)))
    steps = rows.reshape(len(rows), spec.bundle, *field.shape, field.components)
    return torch.roll(steps, by, axes).flatten(1)


def apply(operator: str, rows: Tensor, strength: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One step: "shift" by two points along the last axis; "steepen", -a u ∂u/∂x by central differences, a = strength (number, 1)."""
    fields = rows.reshape(-1, *shape)
    if operator == "shift":
        return torch.roll(fields, 2, -1).flatten(1)
    slope = torch.roll(fields, -1, -1) - torch.roll(fields, 1, -1)
    return rows - 0.2 * strength * rows * slope.flatten(1)


def learnt_error(model: nn.Module, shape: tuple[int, ...], operator: str, steps: int, rate: float) -> float:
    """Error on fresh fields after training on `steps` fresh batches of 16, relative to that of predicting no change (RMSE)."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)

    def batch(number: int) -> tuple[Tensor, Tensor, Tensor]:
        inputs = torch.rand(number, 2, generator=generator)
        state = smooth_rows(number, shape, generator)
        return inputs, state, apply(operator, state, inputs[:, :1], shape)

    for _ in range(steps):
        inputs, state, target = batch(16)
        optimizer.zero_grad()
        (model(inputs, state) - target).square().mean().backward()
        optimizer.step()
        schedule.step()
    inputs, state, target = batch(64)
    with torch.no_grad():
        error = (model(inputs, state) - target).square().mean()
    return float((error / (state - target).square().mean()).sqrt())
