"""What the training clock counts, and what a checkpoint keeps of it."""

from __future__ import annotations

import pytest

from penstock_server.trainer_rank.clock import TrainingClock

EARLIER = {"wall": 10.0, "training": 8.0, "stall": 3.0, "samples": 40}


def test_a_checkpoint_before_the_first_batch_of_a_resumed_study_counts_stall_seconds_once() -> None:
    clock = TrainingClock()
    clock.load_state_dict(EARLIER)
    assert clock.state_dict(stall_seconds=3.0) == EARLIER  # the source of samples has its 3 s from the checkpoint, too
    assert clock.stall_fraction(stall_seconds=3.0) == 3.0 / 8.0


def test_stall_seconds_after_the_first_batch_are_added() -> None:
    clock = TrainingClock()
    clock.load_state_dict(EARLIER)
    clock.begin(stall_seconds=5.0)
    assert clock.state_dict(stall_seconds=5.5)["stall"] == pytest.approx(3.5)
