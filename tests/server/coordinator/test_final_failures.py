"""A failure that would come again with the same parameters is not tried again."""

from __future__ import annotations

from talk import SPARES, Talk

from penstock_client.payloads import Outcome
from penstock_client.wire import Kind


def test_a_simulation_that_would_fail_again_is_not_tried_again(talk: Talk) -> None:
    talk.hello(b"a")
    first, attempt = talk.assigned(b"a")
    talk.finish(b"a", first, attempt, Outcome.FAILED_FOR_GOOD, "it has diverged")
    for _ in range(3):
        talk.finish(b"a", *talk.assigned(b"a"))
    counts = talk.coordinator.counts()
    assert (counts.finished, counts.failed, counts.restarted) == (3, 1, 0)
    assert talk.coordinator.failures() == {first: "it has diverged"}
    assert talk.coordinator.production_over


def test_a_study_may_ask_for_further_attempts_all_the_same(events, make_study) -> None:
    talk = Talk(events, make_study(solver={"retry_final": True}))
    talk.hello(b"a")
    first, attempt = talk.assigned(b"a")
    talk.finish(b"a", first, attempt, Outcome.FAILED_FOR_GOOD, "it has diverged")
    for _ in range(3):
        talk.finish(b"a", *talk.assigned(b"a"))
    assert talk.assigned(b"a") == (first, 2)


def test_a_worker_may_know_more_of_a_failure_than_the_solver_that_reported_it(events, make_study) -> None:
    """A solver says that it has failed; the worker finds the reason in its log, and says that it is final."""
    talk = Talk(events, make_study(), spares=SPARES)
    talk.hello(b"a")
    talk.hello(b"solver")
    talk.finish(b"a", *talk.assigned(b"a"))  # the held-out one, which is not replaced
    first, attempt = talk.assigned(b"a")
    talk.say(b"solver", Kind.NEXT, simulation=first, attempt=attempt)
    talk.finish(b"solver", first, attempt, Outcome.FAILED, "signal 8")
    talk.finish(b"a", first, attempt, Outcome.FAILED_FOR_GOOD, "it has diverged")
    counts = talk.coordinator.counts()
    assert (counts.failed, counts.redrawn) == (0, 1)
    assert talk.coordinator.failures() == {first: "it has diverged"}
    given = []
    while talk.coordinator.has_waiting:
        given.append(talk.assigned(b"a"))
        talk.finish(b"a", *given[-1])
    assert given == [(1, 1), (2, 1), (4, 1)]
