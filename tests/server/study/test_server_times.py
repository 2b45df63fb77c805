"""Time-outs of [server] that cannot work are refused."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"heartbeat": 60.0}, "client_timeout"),
        ({"heartbeat": 5.0, "server_timeout": 4.0}, "server_timeout"),
        ({"client_timeout": "50 d", "server_timeout": "50 d"}, "49 days"),
    ],
)
def test_times_that_take_every_client_for_lost_are_refused(heat_study, server, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        heat_study(server=server)


def test_the_longest_times_can_be_told_to_clients(heat_study) -> None:
    assert heat_study(server={"server_timeout": "49 d", "heartbeat": "1 d", "client_timeout": "49 d"})
