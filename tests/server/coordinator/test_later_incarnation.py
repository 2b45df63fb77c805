"""The coordinator of a restarted server continues from the state of the one before."""

from __future__ import annotations

from talk import SPARES, Talk

from penstock_client.payloads import Outcome
from penstock_server.telemetry import EventLog


def test_a_later_incarnation_takes_up_failures_replacements_and_the_order_of_the_rest(events, make_study) -> None:
    talk = Talk(events, make_study(solver={"retries": 0}), spares=SPARES)
    talk.hello(b"a")
    for outcome in (Outcome.FINISHED, Outcome.FAILED):  # the held-out 3, then 0, which 4 replaces
        talk.finish(b"a", *talk.assigned(b"a"), outcome, "boom")
    assert talk.assigned(b"a") == (1, 1)  # under way
    state = talk.coordinator.state_dict()
    arrived = {0: 2, 1: 1, 2: 0, 3: 5, 4: 0}.__getitem__
    for again, attempt, restarted in (((), 2, 1), ((1,), 1, 0)):
        later = Talk(events, make_study(solver={"retries": 0}), spares=SPARES)
        later.coordinator.load_state_dict(state, arrived, again=again)
        later.hello(b"a")
        for expected in ((1, attempt), (2, 1), (4, 1)):
            assert later.assigned(b"a") == expected
            later.finish(b"a", *expected)
        counts = later.coordinator.counts()
        assert (counts.finished, counts.failed, counts.redrawn, counts.restarted) == (4, 0, 1, restarted)
        assert later.coordinator.failures() == {0: "boom"}
        assert later.coordinator.production_over


def test_what_had_finished_is_taken_up_by_a_later_incarnation_only_with_all_its_samples(
    events: EventLog, make_study, talk
) -> None:
    talk.hello(b"a")
    for _ in range(3):
        talk.finish(b"a", *talk.assigned(b"a"))
    state = talk.coordinator.state_dict()
    later = Talk(events, make_study())
    later.coordinator.load_state_dict(state, {3: 5, 0: 5, 1: 4}.__getitem__)
    later.hello(b"a")
    later.hello(b"b")
    assert [later.assigned(name) for name in (b"a", b"b")] == [(1, 2), (2, 1)]
