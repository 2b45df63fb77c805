"""One trainer rank's life: its loop, checkpoints, clock and status."""

from penstock_server.trainer_rank.loop import TrainingLoop
from penstock_server.trainer_rank.rank import TrainerRank
from penstock_server.trainer_rank.restore import CHECKPOINTS, export_checkpoint
from penstock_server.trainer_rank.shares import share_of
from penstock_server.trainer_rank.status import RankStatus

__all__ = ["CHECKPOINTS", "RankStatus", "TrainerRank", "TrainingLoop", "export_checkpoint", "share_of"]
