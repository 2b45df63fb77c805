"""A trainer rank before and after the fields of its study are known."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from penstock_client.wire import Dtype, Header, Kind, unpack
from penstock_server.study import FieldSpec, SampleSpec, Schema, Study
from penstock_server.trainer_rank import RankCallbacks, TrainerRank

SCHEMA = Schema(
    SampleSpec(("initial", "left", "right", "bottom", "top"), (FieldSpec("T", 1, (16, 16)),)),
    {"T": 0},
    {0: Dtype.FLOAT32},
    0,
)


def trained(rank: TrainerRank) -> bool:
    """Whether `train` returns; a busy machine may take long to export a model."""
    thread = threading.Thread(target=rank.train, daemon=True)
    thread.start()
    thread.join(120)
    return not thread.is_alive()


def rank_of(study: Study, directory: Path, over: list[str]) -> TrainerRank:
    callbacks = RankCallbacks(on_over=lambda: over.append("over"))
    return TrainerRank(study, directory, rank=0, incarnation=1, callbacks=callbacks)


def test_training_ends_when_production_ends_before_the_fields_are_known(
    heat_study: Callable[..., Study], tmp_path: Path
) -> None:
    over: list[str] = []
    rank = rank_of(heat_study(), tmp_path, over)
    rank.end_production()
    assert trained(rank)
    assert (rank.status().over, rank.status().buffer, over) == ("production ended", None, ["over"])


def test_a_message_before_the_fields_are_known_is_refused(heat_study: Callable[..., Study], tmp_path: Path) -> None:
    rank = rank_of(heat_study(), tmp_path, [])
    ((peer, frames),) = rank.handle(b"peer", [Header(Kind.PIECE, 1).pack(), b""], 0.0)
    assert (peer, unpack(frames[0]).kind) == (b"peer", Kind.REFUSE)
    assert rank.status().refused == {"no_begin": 1}


def test_a_stopped_rank_concludes(heat_study: Callable[..., Study], tmp_path: Path) -> None:
    over: list[str] = []
    rank = rank_of(heat_study(), tmp_path, over)
    rank.configure(SCHEMA)
    rank.stop("told to")
    assert trained(rank)
    status = rank.status()
    assert (status.over, status.checkpoints.count, over) == ("told to", 1, ["over"])
    assert (tmp_path / "model").is_dir()


def test_a_model_is_exported_although_the_pictures_cannot_be_written(
    heat_study: Callable[..., Study], tmp_path: Path
) -> None:
    rank = rank_of(heat_study(), tmp_path, [])
    rank.configure(SCHEMA)
    assert rank.training is not None
    spec = SCHEMA.spec
    inputs, targets = np.zeros(spec.n_inputs, np.float32), np.zeros(spec.width, np.float32)
    rank.training.loop.parts.validation.add(6, 0, inputs, targets)
    (tmp_path / "validation_snapshots.h5").mkdir()
    rank.stop("told to")
    assert trained(rank)
    assert any("validation_snapshots.h5 could not be written" in warning for warning in rank.status().warnings)
    assert (tmp_path / "model").is_dir()
