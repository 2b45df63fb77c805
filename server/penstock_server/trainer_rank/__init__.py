"""One trainer rank: its training loop, checkpoints, clock and status.

`TrainerRank` takes samples from clients. An offline study makes a `TrainingLoop` on a `RecordedSupply` instead.
"""

from penstock_server.trainer_rank.checkpoints import CHECKPOINTS
from penstock_server.trainer_rank.context import RankContext
from penstock_server.trainer_rank.loop import TrainingLoop
from penstock_server.trainer_rank.mesh_file import add_to_mesh
from penstock_server.trainer_rank.parts import TrainingParts, make_parts
from penstock_server.trainer_rank.rank import RankCallbacks, TrainerRank
from penstock_server.trainer_rank.recorded import RecordedSupply
from penstock_server.trainer_rank.restore import export_checkpoint
from penstock_server.trainer_rank.shares import batch_share, buffer_share
from penstock_server.trainer_rank.status import RankStatus, status_before_training

__all__ = [
    "CHECKPOINTS",
    "RankCallbacks",
    "RankContext",
    "RankStatus",
    "RecordedSupply",
    "TrainerRank",
    "TrainingLoop",
    "TrainingParts",
    "add_to_mesh",
    "batch_share",
    "buffer_share",
    "export_checkpoint",
    "make_parts",
    "status_before_training",
]
