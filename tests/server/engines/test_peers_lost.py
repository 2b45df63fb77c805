"""Trainer ranks that lose each other have not finished the study: the server must be restarted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from penstock_server.engines.ray.server_processes import ServerDied, ServerProcesses, network_lost  # noqa: E402
from penstock_server.engines.results import CoordinatorStatus, study_status  # noqa: E402
from penstock_server.trainer_rank import RankStatus  # noqa: E402
from penstock_server.training import PeersLost, RankGroup  # noqa: E402
from waiting import wait_for  # noqa: E402

LOST = RankStatus(over="connection closed", lost="connection closed")


def server(monkeypatch: pytest.MonkeyPatch, ranks: list[RankStatus]) -> ServerProcesses:
    """A server whose ranks answer with these statuses, and whose coordinator answers nothing that matters here."""
    made = ServerProcesses.__new__(ServerProcesses)

    def actor(**answers: Any) -> SimpleNamespace:
        return SimpleNamespace(**{n: SimpleNamespace(remote=lambda *_, a=a: a) for n, a in answers.items()})

    made._ranks = [actor(status=rank, unique=(0, {})) for rank in ranks]
    made._coordinator = actor(stop=None, results=(None, ""))
    monkeypatch.setattr(made, "_get", lambda references: references)
    return made


def test_ranks_that_lost_each_other_make_the_engine_restart_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerDied, match="lost the connection between them .connection closed") as caught:
        server(monkeypatch, [LOST, LOST]).results()
    assert caught.value.kind == "rank"
    status = study_status([LOST, LOST], CoordinatorStatus(), elapsed=1.0, error="", stopped="")
    assert status.phase not in ("finished", "stopped", "failed")


@pytest.mark.parametrize(
    "ranks",
    [
        [LOST, RankStatus(over="failed", error="the loss is not finite")],  # that error is the cause
        [RankStatus(over="production ended"), LOST],  # rank 0 has written model and checkpoint
    ],
)
def test_an_error_of_a_rank_or_a_rank_0_that_has_ended_well_is_no_restart(
    monkeypatch: pytest.MonkeyPatch, ranks: list[RankStatus]
) -> None:
    assert server(monkeypatch, ranks).results().study.ranks == ranks


def test_ranks_that_all_wait_for_each_other_have_lost_the_network() -> None:
    late, waiting = RankStatus(waiting=0.5), RankStatus(waiting=16.0)
    assert "each has waited for the others for 16 s" in network_lost([waiting, RankStatus(waiting=17.0)], 15.0)
    assert network_lost([waiting, late], 15.0) == ""  # the others wait for one that is busy
    assert network_lost([RankStatus()], 15.0) == ""


def test_a_group_knows_for_how_long_a_call_has_waited() -> None:
    group = RankGroup(0, 2)
    assert group.waiting_seconds == 0.0
    with pytest.raises(PeersLost, match="has gone: closed$"), group.together():
        wait_for(lambda: group.waiting_seconds > 0.0)
        raise RuntimeError("[/x/pair.cc:537] closed. Have fun!")
    assert group.waiting_seconds == 0.0
