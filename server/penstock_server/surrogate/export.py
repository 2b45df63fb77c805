"""Export of a trained model to files that need no training server: a torch.export program or ONNX, and a model card."""

from __future__ import annotations

import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from penstock_client.atomic_file import replacing, write_atomic
from penstock_server.study import SampleSpec
from penstock_server.surrogate.agreement import ExportError, expect_agreement
from penstock_server.surrogate.onnx_export import onnx_evaluate, onnx_program
from penstock_server.surrogate.predict import CARD, FORMAT, PROGRAM, evaluate_program, load_program
from penstock_server.surrogate.program_check import UnsafeProgram
from penstock_server.surrogate.raw import copied_to_cpu, raw_outputs, raw_surrogate
from penstock_server.telemetry import strict_json
from penstock_server.training import Ensemble, Trainer
from penstock_server.validation import ValidationResult

__all__ = ["ExportError", "ModelCard", "export_model"]

FILES = {"pt2": PROGRAM, "onnx": "surrogate.onnx"}
"""File names by form."""


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


def export_model(
    directory: Path, trainer: Trainer, spec: SampleSpec, card: ModelCard, form: Literal["pt2", "onnx"] = "pt2"
) -> Path:
    """Write surrogate.pt2 or surrogate.onnx, and card.json.

    The program maps inputs (batch, n_inputs), and with window > 1 the state before (batch, state_width), to targets
    (batch, width or state_width), float32, in raw units, for any batch size. A field with a reference is its difference
    from the reference there, since float32 could not hold the sum; `Surrogate.predict` adds it in float64. The program
    of an ensemble returns the mean over its members and, as a second output, their standard deviation (n - 1).

    What was exported is evaluated before it is written: it must give the trained model's numbers.

    Args:
        directory: folder of the two files, usually RUN/model.
        trainer: the trained model and its normalisation.
        spec: layout of a sample.
        card: the rest of the model card.
        form: "pt2" for a torch.export program, "onnx" for an ONNX model with the same inputs and output.

    Returns:
        `directory`.

    Raises:
        ExportError: the model cannot be exported, or gives other numbers; existing files are kept.
        ModuleNotFoundError: form is "onnx", and the extra onnx is not installed.
    """
    model, affine = copied_to_cpu(trainer.model).eval(), trainer.normaliser.affine()
    surrogate = raw_surrogate(model, affine)
    example = [torch.zeros(2, spec.n_inputs)]
    if spec.window > 1:
        example.append(torch.zeros(2, spec.state_width))
    if form == "onnx":
        content = onnx_program(surrogate, example, ["targets", "spread"][: 1 + (trainer.members > 1)])
        exported = onnx_evaluate(content)
    else:
        content = _torch_program(surrogate, example, _kind(trainer.model).__name__)
        exported = evaluate_program(_load(content))
    expect_agreement(exported, partial(raw_outputs, model, affine), trainer.normaliser, form)
    directory.mkdir(parents=True, exist_ok=True)
    text = strict_json(_card(trainer, spec, card), indent=2) + "\n"
    with replacing(directory / FILES[form]) as temporary:
        temporary.write_bytes(content)
    write_atomic(directory / CARD, text)
    return directory


def _torch_program(surrogate: nn.Module, example: Sequence[Tensor], name: str) -> bytes:
    """Return the content of a torch.export file; name: of the model's class, for the error."""
    batch = torch.export.Dim("batch")
    try:
        with torch.no_grad():
            program = torch.export.export(
                surrogate, tuple(example), dynamic_shapes=tuple({0: batch} for _ in example), strict=False
            )
    except Exception as error:  # torch.export fails in many ways on a user's forward
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"torch.export cannot trace {name}.forward for any batch size: {first_line}; "
            "keep its control flow free of tensor values and of the batch size"
        ) from error
    # torch's own file writer aborts the process when the disk is full.
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def _load(content: bytes) -> nn.Module:
    try:
        return load_program(content)
    except UnsafeProgram as error:
        raise ExportError(
            f"the model's program is refused: {error}, which `penstock predict` would refuse to load: use operators of torch only"
        ) from error


def _kind(model: nn.Module) -> type[nn.Module]:
    """The class of a model, or of an ensemble's members."""
    return model.kind if isinstance(model, Ensemble) else type(model)


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
        "model": _kind(trainer.model).__name__,
        "members": trainer.members,
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
