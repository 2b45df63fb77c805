"""What a simulation tells the process that watches its solver."""

from __future__ import annotations

from typing import ClassVar

import pytest

from penstock_client import (
    Abandoned,
    Field,
    FieldError,
    PenstockError,
    Reason,
    Refused,
    ServerLost,
    Simulation,
    SimulationFailed,
    WireError,
    stream_solver,
)
from penstock_client.payloads import Accept, Finish, Outcome, Welcome
from penstock_client.simulation import Request
from penstock_client.wire import Header, Kind

WELCOME = Welcome(1000, 60_000, 1 << 20, 0, 0, False, ("data",), (), ("T",), "{}")


def answer_nothing(_header: Header, _payload: bytes, _kind: Kind) -> bytes:
    return b""


def simulation(error: PenstockError | None, request: Request = answer_nothing) -> Simulation:
    def check() -> None:
        if error is not None:
            raise error

    return Simulation(
        Header(Kind.NEXT, 1, 0, 1),
        {},
        validation=False,
        ranks=1,
        welcome=WELCOME,
        streams=[],
        request=request,
        check=check,
    )


@pytest.mark.parametrize(
    ("error", "abandoned"),
    [(None, False), (Abandoned("a"), True), (ServerLost("b"), True), (Refused(Reason.GIVEN_UP, "c"), True)],
)
def test_a_simulation_is_abandoned_when_the_server_does_not_want_it_or_is_lost(
    error: PenstockError | None, abandoned: bool
) -> None:
    assert simulation(error).abandoned is abandoned


def test_a_message_that_cannot_be_read_does_not_pass_for_an_abandoned_simulation() -> None:
    with pytest.raises(WireError, match="broken"):
        _ = simulation(WireError("broken")).abandoned


class Solver:
    fields: ClassVar = {"T": Field((2,))}

    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, _parameters):
        raise self._error
        yield


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("odd"), Outcome.FAILED),
        (SimulationFailed("no memory"), Outcome.FAILED),
        (SimulationFailed("it has diverged", final=True), Outcome.FAILED_FOR_GOOD),
        (FieldError("wrong shape"), Outcome.FAILED_FOR_GOOD),
        (Refused(Reason.NOT_FINITE, "nan at element 3"), Outcome.FAILED_FOR_GOOD),
        (Refused(Reason.STALE_ATTEMPT, "attempt 1"), Outcome.FAILED),
    ],
)
def test_a_failure_is_final_where_the_same_parameters_would_give_it_again(error: Exception, outcome: Outcome) -> None:
    said = []

    def request(header: Header, payload: bytes, _kind: Kind) -> bytes:
        if header.kind is Kind.FINISH:
            said.append(Finish.unpack(payload))
            return b""
        return Accept((0,), (True,)).pack()

    assert list(stream_solver(Solver(error), simulation(None, request), ("T",))) == []
    assert [(finish.outcome, str(error) in finish.message) for finish in said] == [(outcome, True)]
