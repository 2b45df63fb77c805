"""What a simulation tells the process that watches its solver."""

from __future__ import annotations

import pytest

from penstock_client import Abandoned, PenstockError, Reason, Refused, ServerLost, Simulation, WireError
from penstock_client.payloads import Welcome
from penstock_client.wire import Header, Kind

WELCOME = Welcome(1000, 60_000, 1 << 20, 0, 0, False, ("data",), (), ("T",), "{}")


def simulation(error: PenstockError | None) -> Simulation:
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
        request=lambda _header, _payload, _kind: b"",
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
