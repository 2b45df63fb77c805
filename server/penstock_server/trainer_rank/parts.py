"""What training reads and changes on one rank, as one object that is complete once the fields are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from penstock_server.checkpoint import check_part
from penstock_server.ingest import Fingerprints
from penstock_server.study import Schema, TrainingSection
from penstock_server.trainer_rank.clock import TrainingClock
from penstock_server.trainer_rank.context import RankContext
from penstock_server.trainer_rank.redistribution import ReadPart
from penstock_server.training import Normaliser, Trainer
from penstock_server.validation import ValidationStore


@dataclass(frozen=True)
class TrainingParts:
    """The parts of one rank whose size depends on the fields.

    Attributes:
        schema: the fields that the study has.
        normaliser: statistics of the training samples.
        trainer: model, optimizer, scheduler and loss.
        validation: the held-out time steps of this rank.
        clock: measures training time.
        fingerprints: of the time steps of the first simulations.
    """

    schema: Schema
    normaliser: Normaliser
    trainer: Trainer
    validation: ValidationStore
    clock: TrainingClock
    fingerprints: Fingerprints = field(default_factory=Fingerprints)

    def state(self, rank: int, stall_seconds: float) -> dict[str, Any]:
        """Return the parts of a checkpoint that stand for these objects.

        Rank 0 writes what all ranks have in common (schema, weights, optimizer); the others write their random state.

        Args:
            rank: number of this rank.
            stall_seconds: time that training has waited for samples, as the source of samples counts it.

        Raises:
            TrainingDiverged: when the loss is not finite.
        """
        trainer = self.trainer.state_dict()
        if rank == 0:
            common = {"schema": self.schema.state_dict(), "trainer": trainer}
        else:
            common = {"random": {name: trainer[name] for name in ("torch_rng", "cuda_rng")}}
        return {
            **common,
            "normaliser": self.normaliser.state_dict(),
            "validation": self.validation.state_dict(),
            "clock": self.clock.state_dict(stall_seconds),
        }

    def load(self, part: ReadPart, trained_with: TrainingSection | None = None) -> str:
        """Restore the objects from a checkpoint.

        Args:
            part: returns this rank's part of the checkpoint, by name.
            trained_with: [training] at the time of the checkpoint; None where it is known to be the same.

        Returns:
            What of the optimizer's state could not be used; "" where all of it was.

        Raises:
            ValueError: when a part belongs to other fields or another model.
            RuntimeError: when the weights belong to another model.
        """
        self.normaliser.load_state_dict(part("normaliser"))
        self.validation.load_state_dict(part("validation"))
        self.clock.load_state_dict(part("clock"))
        return self.trainer.load_state_dict(part("trainer"), trained_with)


def make_parts(context: RankContext, schema: Schema) -> TrainingParts:
    """Make the parts of a new study; torch's global random state is seeded for this rank.

    Args:
        context: the rank.
        schema: the fields.

    Raises:
        PenstockError: when the study asks for a model, loss, optimizer or device that cannot be made, or for a model
            that no checkpoint can hold.
    """
    study, spec, group = context.study, schema.spec, context.group
    normaliser = Normaliser(spec, inputs=study.normalisation.inputs, targets=study.normalisation.targets)
    trainer = Trainer(
        spec,
        study.model,
        study.training,
        normaliser,
        device=study.training.device,
        seed=study.study.seed,
        gradient_average=None if group.alone else group.average,
    )
    check_part("trainer", trainer.state_dict())
    if context.rank:  # the weights of rank 0, but other random numbers
        torch.manual_seed(study.study.seed + context.rank)
    return TrainingParts(schema, normaliser, trainer, ValidationStore(spec), TrainingClock())
