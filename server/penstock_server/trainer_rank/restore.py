"""From a run directory back to its trained model, and from there to an exported one."""

from __future__ import annotations

from pathlib import Path

from penstock_server.checkpoint import load_latest
from penstock_server.study import Schema, Study
from penstock_server.surrogate.export import ModelCard, export_model
from penstock_server.trainer_rank.redistribution import parts_of
from penstock_server.training import Normaliser, Trainer
from penstock_server.validation import ValidationResult, ValidationStore, evaluate

CHECKPOINTS = "checkpoints"
MODEL = "model"


def export_trained(study: Study, trainer: Trainer, validation: ValidationResult | None, directory: Path) -> Path:
    """Export a trained model into the run directory's model/; returns that folder."""
    card = ModelCard(
        study=study.study.name,
        seed=study.study.seed,
        bounds=study.parameters.bounds,
        time=study.samples.time,
        validation=validation,
    )
    export_model(directory / MODEL, trainer, trainer.spec, card)
    return directory / MODEL


def export_checkpoint(study: Study, directory: Path) -> Path:
    """Rebuild the model of the last whole checkpoint on the CPU, evaluate it on the held-out samples it knows, and export it.

    Raises CheckpointError where the run directory holds none.
    """
    checkpoint = load_latest(directory / CHECKPOINTS)
    spec = Schema.from_state_dict(checkpoint.parts["schema"]).spec
    part = parts_of(checkpoint, 0, 1, spec, study.study.seed)  # all that several ranks have written
    normaliser = Normaliser(spec, inputs=study.normalisation.inputs, targets=study.normalisation.targets)
    normaliser.load_state_dict(part("normaliser"))
    trainer = Trainer(spec, study.model, study.training, normaliser, device="cpu", seed=study.study.seed)
    trainer.load_state_dict(part("trainer"))
    store = ValidationStore(spec)
    store.load_state_dict(part("validation"))
    return export_trained(study, trainer, evaluate(store, trainer) if store.predictable() else None, directory)
