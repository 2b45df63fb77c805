"""The coordinator replaces each failed simulation by one at a spare point."""

from __future__ import annotations

from talk import SPARES, Talk

from penstock_client.payloads import Assign, Outcome
from penstock_client.wire import ANY_SIMULATION, Kind


def fail_all(talk: Talk, bad: set[int]) -> list[int]:
    """Run all simulations; those in `bad` fail. Returns the ids in the order in which they were handed out."""
    out = []
    while talk.coordinator.has_waiting:
        simulation, attempt = talk.assigned(b"a")
        out.append(simulation)
        outcome = Outcome.FAILED if simulation in bad else Outcome.FINISHED
        talk.finish(b"a", simulation, attempt, outcome, "boom" if simulation in bad else "")
    return out


def test_a_failed_simulation_is_replaced_by_another_point_under_a_new_id(events, make_study) -> None:
    talk = Talk(events, make_study(), spares=SPARES)
    talk.hello(b"a")
    assert fail_all(talk, {1, 3}) == [3, 0, 1, 2, 3, 1, 4]  # the held-out 3 is not replaced, 1 is
    counts = talk.coordinator.counts()
    assert (counts.requested, counts.finished, counts.failed, counts.redrawn, counts.restarted) == (4, 3, 1, 1, 2)
    assert talk.coordinator.failures() == {1: "boom", 3: "boom"}
    assert talk.coordinator.production_over
    # What the failed one had sent before it failed stays in the accounts.
    assert talk.coordinator.expected({1: 3, 3: 2}.__getitem__) == 5 + 5 + 5 + 3


def test_the_replacement_is_at_the_next_spare_point_and_as_many_are_replaced_as_there_are(events, make_study) -> None:
    talk = Talk(events, make_study(solver={"retries": 0}), spares=SPARES)
    talk.hello(b"a")
    for expected in (3, 0, 1, 2):
        simulation, attempt = talk.assigned(b"a")
        assert simulation == expected
        talk.finish(b"a", simulation, attempt, Outcome.FAILED, "boom")
    for number, point in ((4, 100.0), (5, 101.0)):
        ((_, header, payload),) = talk.say(b"a", Kind.NEXT, simulation=ANY_SIMULATION)
        assert (header.simulation, header.attempt) == (number, 1)
        assert Assign.unpack(payload) == Assign((point,) * 5, False)
        talk.finish(b"a", number, 1, Outcome.FAILED, "boom")
    counts = talk.coordinator.counts()
    assert (counts.requested, counts.failed, counts.redrawn) == (4, 4, 2)
    assert talk.coordinator.production_over
