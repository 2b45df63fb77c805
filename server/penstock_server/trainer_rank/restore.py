"""From a checkpoint back to a training rank, to its counts, or to an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from penstock_client.errors import PenstockError
from penstock_client.reasons import Reason
from penstock_server.checkpoint import load_latest
from penstock_server.study import Schema, Study
from penstock_server.surrogate.export import ModelCard, export_model
from penstock_server.telemetry import Metrics
from penstock_server.trainer_rank.checkpoints import CHECKPOINTS
from penstock_server.trainer_rank.context import RankContext
from penstock_server.trainer_rank.parts import TrainingParts
from penstock_server.trainer_rank.redistribution import parts_of
from penstock_server.trainer_rank.sample_source import SampleSupply
from penstock_server.training import Normaliser, Trainer
from penstock_server.validation import ValidationResult, ValidationStore, evaluate

MODEL = "model"


class ResumeError(PenstockError):
    """The checkpoint does not fit the study."""


def restore_rank(context: RankContext, parts: TrainingParts, supply: SampleSupply) -> None:
    """Continue from the checkpoint of `context`, where there is one.

    Args:
        context: the rank.
        parts: model, normalisation, held-out samples and clock; as new.
        supply: where samples come from; as new.

    Raises:
        PenstockError: when the checkpoint belongs to other samples, another model, optimizer or buffer.
    """
    if context.restore is None:
        return
    study = context.study
    part = parts_of(context.restore, context.rank, study.training.ranks, parts.schema.spec, study.study.seed)
    try:
        lost = parts.load(part, context.trained_with)
        supply.load(part)
    except (ValueError, RuntimeError) as error:
        raise ResumeError(f"checkpoint {context.restore.path} does not fit the study: {error}") from error
    if lost:
        context.warnings.append(lost)
    context.metrics.batches.inc(parts.trainer.batches)
    context.metrics.presentations.inc(supply.source.stats().presentations)


def counts_of(metrics: Metrics) -> dict[str, Any]:
    """Return the counts of a rank, the part "counts" of a checkpoint.

    Args:
        metrics: of the rank.
    """
    return {
        "received": metrics.total("samples_received"),
        "duplicates": metrics.total("duplicates_dropped"),
        "bytes": metrics.total("received_bytes"),
        "incomplete": metrics.total("incomplete_dropped"),
        # What a stopping study refuses is sent again.
        "refused": {reason: n for reason, n in metrics.refusals().items() if reason != "study_over"},
    }


def load_counts(metrics: Metrics, counts: dict[str, Any]) -> None:
    """Add the counts of a checkpoint to those of a rank.

    Args:
        metrics: of the rank, as new.
        counts: as `counts_of` returned them.
    """
    metrics.samples_received.inc(counts["received"])
    metrics.duplicates_dropped.inc(counts["duplicates"])
    metrics.bytes_received.inc(counts["bytes"])
    metrics.incomplete_dropped.inc(counts["incomplete"])
    for reason, number in counts["refused"].items():
        metrics.refused(Reason[reason.upper()], number)


def export_trained(
    study: Study,
    trainer: Trainer,
    validation: ValidationResult | None,
    directory: Path,
    form: Literal["pt2", "onnx"] = "pt2",
) -> Path:
    """Export a trained model into the run directory's model/.

    Args:
        study: the whole study.
        trainer: has the model.
        validation: its last validation, for the model card; None where there is none.
        directory: the study's run directory.
        form: of the exported model.

    Returns:
        The folder of the exported model.

    Raises:
        ExportError: when torch cannot export the model, or the exported one gives other numbers.
        OSError: when the folder cannot be written.
    """
    card = ModelCard(
        study=study.study.name,
        seed=study.study.seed,
        bounds=study.parameters.bounds,
        time=study.samples.time,
        validation=validation,
    )
    export_model(directory / MODEL, trainer, trainer.spec, card, form)
    return directory / MODEL


def export_checkpoint(study: Study, directory: Path, form: Literal["pt2", "onnx"] = "pt2") -> Path:
    """Export the model of the last whole checkpoint.

    It is rebuilt on the CPU and evaluated on the held-out samples of the checkpoint.

    Args:
        study: the whole study.
        directory: its run directory.
        form: of the exported model.

    Returns:
        The folder of the exported model.

    Raises:
        CheckpointError: when the run directory holds no whole checkpoint.
        ExportError: when torch cannot export the model, or the exported one gives other numbers.
        OSError: when the folder cannot be written.
    """
    checkpoint = load_latest(directory / CHECKPOINTS)
    spec = Schema.from_state_dict(checkpoint.parts["schema"]).spec
    part = parts_of(checkpoint, 0, 1, spec, study.study.seed)  # all held-out samples, those of other ranks too
    normaliser = Normaliser(spec, inputs=study.normalisation.inputs, targets=study.normalisation.targets)
    normaliser.load_state_dict(part("normaliser"))
    trainer = Trainer(spec, study.model, study.training, normaliser, device="cpu", seed=study.study.seed)
    trainer.load_state_dict(part("trainer"))
    store = ValidationStore(spec)
    store.load_state_dict(part("validation"))
    validation = evaluate(store, trainer) if store.predictable() else None
    return export_trained(study, trainer, validation, directory, form)
