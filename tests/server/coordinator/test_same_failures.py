"""A study whose first simulations all fail with the same words stops early."""

from __future__ import annotations

import pytest
from talk import Talk

from penstock_client.payloads import Outcome
from penstock_server.coordinator.same_failures import SameFailures


def test_numbers_paths_and_further_lines_do_not_make_words_differ() -> None:
    same = SameFailures(3)
    for number, folder in enumerate(("/dev/shm/a1", "/dev/shm/x9", "run/b")):
        assert same.reason == ""
        same.note_failed(f"cannot read {folder}: {number + 0.5e3} bytes\nline {number}: {folder * number}")
    assert "the first 3 simulations have all failed with the same words: cannot read run/b: 502.0 bytes" in same.reason


@pytest.mark.parametrize("other", ["another failure", "finished"])
def test_another_failure_or_a_success_lets_the_study_go_on(other: str) -> None:
    same = SameFailures(3)
    same.note_failed("boom")
    if other == "finished":
        same.note_finished()
    else:
        same.note_failed(other)
    for _ in range(10):
        same.note_failed("boom")
    assert same.reason == ""


@pytest.mark.parametrize(("wanted", "expected"), [(2, 2), (0, 0), (5, 4)])
def test_the_study_says_how_many(events, make_study, wanted: int, expected: int) -> None:
    talk = Talk(events, make_study(solver={"same_failures": wanted}))
    talk.hello(b"a")
    failed = 0
    while talk.coordinator.has_waiting and not talk.coordinator.hopeless:
        talk.finish(b"a", *talk.assigned(b"a"), Outcome.FAILED, f"boom {failed}")
        failed += 1
    assert talk.coordinator.counts().failed == (expected or 4)
    assert bool(talk.coordinator.hopeless) is bool(expected)
