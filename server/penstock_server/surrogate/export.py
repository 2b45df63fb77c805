"""Export of a trained model to two files that need no training server: a torch.export program and a model card."""

from __future__ import annotations

import copy
import io
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from penstock_client.atomic_file import replacing, write_atomic
from penstock_client.errors import PenstockError
from penstock_server.study import SampleSpec
from penstock_server.surrogate.predict import CARD, FORMAT, PROGRAM
from penstock_server.telemetry import strict_json
from penstock_server.training import Affine, Trainer
from penstock_server.validation import ValidationResult


class ExportError(PenstockError):
    """torch.export cannot turn the model into a program."""


@dataclass(frozen=True)
class ModelCard:
    """The part of the model card that the model itself does not know.

    Attributes:
        study: name of the study.
        seed: seed of the study.
        bounds: parameter name to (low, high).
        time: time that the model sees, "step" or "physical".
        validation: last errors on held-out simulations; None where there are none.
    """

    study: str
    seed: int
    bounds: Mapping[str, tuple[float, float]]
    time: Literal["step", "physical"] = "step"
    validation: ValidationResult | None = None


class RawSurrogate(nn.Module):
    """The surrogate in raw units: normalisation, model, inverse normalisation.

    Args:
        model: the trained model, in normalised units.
        affine: mean and standard deviation of inputs and targets.
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    target_scale: Tensor

    def __init__(self, model: nn.Module, affine: Affine) -> None:
        super().__init__()
        self.model = model
        for name, tensor in vars(affine).items():
            self.register_buffer(name, tensor.clone())

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """Predict in raw units.

        Args:
            inputs: (batch, n_inputs).
            state: with window > 1, the bundle before, (batch, state_width); otherwise None.

        Returns:
            Targets (batch, width), or with window > 1 (batch, state_width).
        """
        affine = Affine(self.input_mean, self.input_std, self.target_mean, self.target_std, self.target_scale)
        arguments = [affine.inputs(inputs)]
        if state is not None:
            arguments.append(affine.targets(state))
        return affine.raw_targets(self.model(*arguments))


def export_model(directory: Path, trainer: Trainer, spec: SampleSpec, card: ModelCard) -> Path:
    """Write surrogate.pt2 and card.json.

    The program maps inputs (batch, n_inputs), and with window > 1 the state before (batch, state_width), to targets
    (batch, width or state_width), float32, in raw units, for any batch size. A field with a reference is its difference
    from the reference there, since float32 could not hold the sum; `Surrogate.predict` adds it in float64.

    Args:
        directory: folder of the two files, usually RUN/model.
        trainer: the trained model and its normalisation.
        spec: layout of a sample.
        card: the rest of the model card.

    Returns:
        `directory`.

    Raises:
        ExportError: the model cannot be exported; existing files are kept.
    """
    surrogate = RawSurrogate(_copied_to_cpu(trainer.model), trainer.normaliser.affine()).eval()
    example = [torch.zeros(2, spec.n_inputs)]
    if spec.window > 1:
        example.append(torch.zeros(2, spec.state_width))
    batch = torch.export.Dim("batch")
    try:
        with torch.no_grad():
            program = torch.export.export(
                surrogate, tuple(example), dynamic_shapes=tuple({0: batch} for _ in example), strict=False
            )
    except Exception as error:  # torch.export fails in many ways on a user's forward
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"torch.export cannot trace {type(trainer.model).__name__}.forward for any batch size: {first_line}; "
            "keep its control flow free of tensor values and of the batch size"
        ) from error
    directory.mkdir(parents=True, exist_ok=True)
    text = strict_json(_card(trainer, spec, card), indent=2) + "\n"
    # torch's own file writer aborts the process when the disk is full.
    content = io.BytesIO()
    torch.export.save(program, content)
    with replacing(directory / PROGRAM) as temporary:
        temporary.write_bytes(content.getbuffer())
    write_atomic(directory / CARD, text)
    return directory


def _copied_to_cpu(model: nn.Module) -> nn.Module:
    """Copy a model to the CPU without a second copy on its own device, whose memory may be full."""
    copies: dict[int, Any] = {}
    for parameter in model.parameters():
        copies[id(parameter)] = nn.Parameter(
            parameter.detach().to("cpu", copy=True), requires_grad=parameter.requires_grad
        )
    for buffer in model.buffers():
        copies[id(buffer)] = buffer.detach().to("cpu", copy=True)
    return copy.deepcopy(model, copies).cpu()


def _card(trainer: Trainer, spec: SampleSpec, card: ModelCard) -> dict[str, Any]:
    # Infinite where nothing was seen, which JSON has no number for: null.
    low, high = (row.tolist() for row in trainer.normaliser.input_range())
    seen = dict(zip((*spec.parameters, "time"), zip(low, high, strict=True), strict=True))
    columns = spec.columns()
    return {
        "format": FORMAT,
        "study": card.study,
        "seed": card.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"penstock": _version("penstock"), "torch": torch.__version__, "python": platform.python_version()},
        "model": type(trainer.model).__name__,
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "batches": trainer.batches,
        "window": spec.window,
        "bundle": spec.bundle,
        "parameters": {name: {"bounds": list(card.bounds[name]), "trained": seen[name]} for name in spec.parameters},
        "time": {"kind": card.time, "trained": seen["time"]},
        "fields": [
            {
                "name": field.name,
                "components": field.components,
                "shape": list(field.shape),
                "offset": columns[field.name].start,
                "reference": field.reference,
            }
            for field in spec.fields
        ],
        "normalisation": {
            "inputs": trainer.normaliser.on_inputs,
            "targets": trainer.normaliser.on_targets,
            "inside_program": True,
        },
        "validation": None if card.validation is None else card.validation.figures(),
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
