"""One batch, one optimizer step: trainer, losses, optimizers, normalisation, and what trainer ranks do together."""

from penstock_server.training.device import resolve_device
from penstock_server.training.ensemble import Ensemble, make_members, predict_each
from penstock_server.training.group import ALONE, MeetingPoint, PeersLost, RankGroup
from penstock_server.training.losses import make_loss
from penstock_server.training.normalisation import Affine, Normaliser, merged_statistics
from penstock_server.training.optimizers import make_optimizer, make_scheduler
from penstock_server.training.trainer import Trainer

__all__ = [
    "ALONE",
    "Affine",
    "Ensemble",
    "MeetingPoint",
    "Normaliser",
    "PeersLost",
    "RankGroup",
    "Trainer",
    "make_loss",
    "make_members",
    "make_optimizer",
    "make_scheduler",
    "merged_statistics",
    "predict_each",
    "resolve_device",
]
