"""Steps of several ranks whose streams are uneven: nobody hangs, nothing is lost."""

from __future__ import annotations

import pytest
from groups import ranks, result


@pytest.mark.parametrize("policy", ["fifo", "reservoir"])
def test_eight_ranks_with_wildly_uneven_streams_end_cleanly(policy: str) -> None:
    # samples, seconds between two: floods, trickles, one that ends at once, one that brings a single sample late
    streams = [(200, 0.0), (0, 0.0), (1, 2.0), (40, 0.01), (7, 0.2), (100, 0.001), (3, 0.0), (20, 0.05)]
    with ranks(len(streams), "streams", policy, 8, *(value for stream in streams for value in stream)) as processes:
        results = [result(process) for process in processes]
    assert len({one["steps"] for one in results}) == 1  # all have made the same steps
    assert [one["trained"] for one in results] == [number for number, _ in streams]
    assert results[1]["without"] == results[1]["steps"]


def test_even_streams_make_whole_steps() -> None:
    """Each rank has 20 samples in batches of 2, one now and then: a step waits for both, so that there are 10."""
    with ranks(2, "streams", "fifo", 100, 20, 0.03, 20, 0.05) as processes:
        results = [result(process) for process in processes]
    assert [(one["steps"], one["without"], one["trained"]) for one in results] == [(10, 0, 20)] * 2


def test_training_ends_when_one_rank_wants_it_though_the_others_could_go_on() -> None:
    with ranks(2, "end", 3) as processes:
        results = [result(process) for process in processes]
    assert results[0]["presentations"] == 6
    assert results[0]["steps"] == results[1]["steps"] <= 4  # a batch that was drawn meanwhile is trained on
