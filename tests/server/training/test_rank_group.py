"""Groups of real processes over gloo."""

from __future__ import annotations

import signal

import psutil
import pytest
from groups import ranks, result

from penstock_client.errors import PenstockError
from penstock_server.training import ALONE, MeetingPoint, RankGroup

SIZE = 3


@pytest.mark.parametrize("where", ["everything", "apart"])
def test_all_ranks_get_the_same_from_what_each_brings(where: str) -> None:
    with ranks(SIZE, where) as processes:
        results = [result(process) for process in processes]
    for one in results:
        assert one["sum"] == [3.0, 3.0, 1.5]
        assert one["gather"] == [[], [[1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]]]
        assert one["nothing"] == [[0, 3]] * SIZE
        assert one["text"] == ["rank 0: é", "rank 1: é", "rank 2: é"]
        # (0 samples x 1 + 1 x 2 + 2 x 3) / 3: real and complex parameters alike
        assert one["gradients"] == pytest.approx([8 / 3] * 3)
        assert one["shared"] == [0.0]


def test_gradients_of_all_shapes_are_averaged_through_memory_without_a_name() -> None:
    with ranks(2, "gradients", 6) as processes:
        results = [result(process) for process in processes]
    assert all(one["worst"] < 1e-6 for one in results)
    assert [one["common"] for one in results] == [2, 2]  # one for each dtype


def test_a_rank_that_is_killed_sets_the_others_free() -> None:
    with ranks(SIZE, "wait") as processes:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
        processes[1].send_signal(signal.SIGKILL)
        for process in (processes[0], processes[2]):
            assert "another trainer rank has gone" in result(process)


def test_a_rank_that_leaves_sets_the_others_free() -> None:
    with ranks(SIZE, "leave") as processes:
        first, *others = [result(process) for process in processes]
    assert first == "left"
    assert all("another trainer rank has gone" in text for text in others)


def test_one_rank_is_a_group_too_and_sends_nothing() -> None:
    assert ALONE.sum([1.0, 2.0]).tolist() == [1.0, 2.0]
    assert ALONE.gather_text("x") == ["x"]
    ALONE.join(("203.0.113.1", 1), "203.0.113.1")
    ALONE.leave()


def test_ranks_meet_at_the_address_they_were_given_and_nowhere_else() -> None:
    meeting = MeetingPoint("127.0.0.1", 2)
    listening = [c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
    assert meeting.address in listening
    assert {address.ip for address in listening if address.port == meeting.address[1]} == {"127.0.0.1"}


def test_an_address_of_no_interface_is_named() -> None:
    meeting = MeetingPoint("127.0.0.1", 2)
    with pytest.raises(PenstockError, match=r'host = "203\.0\.113\.1": no network interface of .* has this address'):
        RankGroup(0, 2).join(meeting, "203.0.113.1")
