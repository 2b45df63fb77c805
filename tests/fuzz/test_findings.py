"""Findings of fuzzing in messages, each with the message that did it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from choices import Choices
from client_targets import _Answers, _Beats, heartbeat
from coordinator_target import CoordinatorRig, _control
from ingest_target import IngestRig, begin, end, piece, values_of
from server_checks import ANNOUNCED, LIFE, POINTS

from penstock_client.client import Client
from penstock_client.errors import WireError
from penstock_client.heartbeat import Heartbeat
from penstock_client.payloads import Accept, Announce, Assign, Finish, Hello, Outcome, Refuse, Welcome
from penstock_client.reasons import Reason
from penstock_client.simulation import Field
from penstock_client.stream_payloads import Begin
from penstock_client.wire import Header, Kind, unpack

# --- ingest -------------------------------------------------------------------------------------------------------------


def refusals(answers: list[tuple[bytes, list[bytes]]]) -> list[Reason]:
    return [Refuse.unpack(f[1]).reason for _, f in answers if unpack(f[0]).kind is Kind.REFUSE]


@pytest.mark.parametrize("simulation", [0, 7])
def test_pieces_that_overlap_do_not_make_a_time_step_with_a_hole_whole(simulation: int) -> None:
    rig = IngestRig()
    rig.hear(b"a", begin(simulation))
    u, p = values_of(0)
    rig.hear(b"a", piece(1, p, 0, simulation))
    rig.hear(b"a", piece(0, u[:8], 0, simulation))
    assert (
        refusals(rig.ingest.handle(b"a", piece(0, u[4:8], 0, simulation))) == []
    )  # a part of what has come: a duplicate
    assert refusals(rig.ingest.handle(b"a", piece(0, u[6:10], 0, simulation, 6))) == [Reason.SIZE]
    assert rig.trained.total() + rig.validated.total() == 0
    rig.hear(b"a", piece(0, u[8:], 0, simulation, 8))
    assert rig.trained.total() + rig.validated.total() == 1


@pytest.mark.parametrize("value", [1e39, -1e300, math.nan, math.inf])
def test_a_value_that_is_not_finite_in_a_sample_is_refused(value: float) -> None:
    """1e39 is finite as it is sent, in float64, and infinite as it is stored, in float32."""
    rig = IngestRig()
    rig.hear(b"a", begin(0))
    u, _ = values_of(0)
    u[3] = value
    assert refusals(rig.ingest.handle(b"a", piece(0, u, 0, 0))) == [Reason.NOT_FINITE]


@pytest.mark.parametrize("value", [1e39, math.nan, -math.inf])
def test_parameters_that_are_not_finite_in_a_sample_are_refused(value: float) -> None:
    rig = IngestRig()
    header, _ = begin(0)
    assert refusals(rig.ingest.handle(b"a", [header, Begin(1, (0.5, value)).pack()])) == [Reason.NOT_FINITE]


def test_a_physical_time_that_is_not_finite_in_a_sample_is_refused() -> None:
    rig = IngestRig(time="physical")
    rig.hear(b"a", begin(0))
    header, payload = piece(1, values_of(0)[1], 0, 0)
    late = unpack(header)._replace(time=1e39)
    assert refusals(rig.ingest.handle(b"a", [late.pack(), payload])) == [Reason.SCHEMA]


def test_an_attempt_before_the_first_is_refused() -> None:
    """With windows its time steps were taken, and came to nothing."""
    rig = IngestRig(window=3)
    assert refusals(rig.ingest.handle(b"a", begin(0, attempt=0))) == [Reason.STALE_ATTEMPT]


def test_solver_ranks_that_a_simulation_does_not_have_are_not_remembered() -> None:
    rig = IngestRig()
    rig.hear(b"a", begin(0, ranks=2))
    for rank in range(2, 50):
        assert refusals(rig.ingest.handle(b"a", end(0, rank=rank))) == [Reason.MALFORMED]
    assert refusals(rig.ingest.handle(b"b", begin(1, ranks=0))) == [Reason.MALFORMED]
    assert refusals(rig.ingest.handle(b"b", begin(1, ranks=2, rank=2))) == [Reason.MALFORMED]


# --- coordinator --------------------------------------------------------------------------------------------------------


def told(rig: CoordinatorRig, frames: list[bytes]) -> list[tuple[Header, bytes]]:
    """What peer "a" says, and what it is told."""
    answers = rig.coordinator.handle(b"a", rig.numbered(frames), 0.0)
    return [(unpack(f[0]), f[1]) for to, f in answers if to == b"a"]


@pytest.fixture
def rig() -> CoordinatorRig:
    rig = CoordinatorRig(ready=False)
    told(rig, _control(Kind.HELLO, Hello(b"a" * 16, 1, "host").pack()))
    return rig


@pytest.mark.parametrize(
    "finish",
    [
        Finish(Outcome.FINISHED, 1, 3, "", math.nan),
        Finish(Outcome.FINISHED, 1, 3, "", -1.0),
        Finish(Outcome.FINISHED, 1, 3, "", math.inf),
        Finish(Outcome.FINISHED, 1, 2**64 - 1, "", 0.0),
        Finish(Outcome.FINISHED, 0, 3, "", 0.0),
        Finish(Outcome.FINISHED, 2**32 - 1, 3, "", 0.0),
    ],
    ids=["nan", "negative", "inf", "steps", "no rank", "ranks"],
)
def test_figures_that_would_spoil_the_studys_are_refused(rig: CoordinatorRig, finish: Finish) -> None:
    ((assigned, _),) = told(rig, _control(Kind.NEXT))
    frames = _control(Kind.FINISH, finish.pack(), assigned.simulation, assigned.attempt)
    ((answer, payload),) = told(rig, frames)
    assert answer.kind is Kind.REFUSE
    assert Refuse.unpack(payload).reason is Reason.MALFORMED
    assert rig.coordinator.counts().finished == 0
    rig.conclude()


def test_who_asks_twice_is_answered_once(rig: CoordinatorRig) -> None:
    while told(rig, _control(Kind.NEXT)):
        pass  # until nothing is left to hand out
    for _ in range(20):
        told(rig, _control(Kind.NEXT))
    stopped = [to for to, _ in rig.coordinator.stop()]
    assert stopped.count(b"a") == 1


def test_who_announces_twice_is_answered_once(rig: CoordinatorRig) -> None:
    ((assigned, _),) = told(rig, _control(Kind.NEXT))
    for _ in range(20):
        told(rig, _control(Kind.ANNOUNCE, Announce(ANNOUNCED).pack(), assigned.simulation, assigned.attempt))
    assert [to for to, _ in rig.coordinator.configured()] == [b"a"]


def test_a_field_that_is_announced_twice_is_refused(rig: CoordinatorRig) -> None:
    ((assigned, _),) = told(rig, _control(Kind.NEXT))
    twice = Announce((*ANNOUNCED, ANNOUNCED[0]))
    ((answer, payload),) = told(rig, _control(Kind.ANNOUNCE, twice.pack(), assigned.simulation, assigned.attempt))
    assert answer.kind is Kind.REFUSE
    assert Refuse.unpack(payload).text == "a field was announced twice"


def test_texts_of_a_megabyte_are_cut_before_they_are_kept_or_sent_back(rig: CoordinatorRig) -> None:
    ((assigned, _),) = told(rig, _control(Kind.NEXT))
    field = ANNOUNCED[0].__class__("\x01" * 2**20, ANNOUNCED[0].dtype, 1, (POINTS,))
    ((answer, payload),) = told(
        rig, _control(Kind.ANNOUNCE, Announce((field,)).pack(), assigned.simulation, assigned.attempt)
    )
    assert answer.kind is Kind.REFUSE
    assert len(payload) < 2000
    words = Finish(Outcome.FAILED, 1, 0, "x" * 2**20, 0.0)
    for _ in range(3):
        told(rig, _control(Kind.FINISH, words.pack(), assigned.simulation, assigned.attempt))
    told(rig, _control(Kind.HELLO, Hello(b"b" * 16, 1, "h" * 2**20).pack()))
    rig.conclude()  # no event was longer than a few kilobytes


def test_a_client_that_repeats_itself_does_not_fill_the_log(rig: CoordinatorRig) -> None:
    before = rig.events.lines
    for _ in range(5000):
        assert told(rig, [b"nonsense", b""])[0][0].kind is Kind.REFUSE
    assert rig.refused == 5000
    assert rig.events.lines - before <= 1000


# --- client -------------------------------------------------------------------------------------------------------------


class Scripted:
    """A server that answers each kind of message as the script says."""

    def __init__(self, **script: list[bytes]) -> None:
        self._script = script

    def connect(self, _endpoint: str, *, control: bool = False) -> _Answers:
        connection = _Answers(Choices(b"\x02" * 100), [0])
        say = connection.send

        def send(frames: list[bytes]) -> None:
            asked = unpack(bytes(frames[0]))
            if asked.kind.name in self._script:
                header, *payload = self._script[asked.kind.name]
                # An answer repeats the number of its request.
                connection._waiting.append([unpack(header)._replace(offset=asked.offset).pack(), *payload])
            else:
                say(frames)

        connection.send = send  # type: ignore[method-assign]
        return connection

    def close(self, *, deliver: bool = True) -> None:
        """Nothing to give back."""


def message(kind: Kind, payload: bytes | None = b"", **header: int) -> list[bytes]:
    packed = Header(kind, LIFE, **{"simulation": 0, "attempt": 1, **header}).pack()
    return [packed] if payload is None else [packed, payload]


WRONG = [
    ("NEXT", message(Kind.ASSIGN, Assign((0.5,), False).pack()), "has 1 parameters, WELCOME named 2"),
    ("NEXT", message(Kind.ASSIGN, Assign((0.5, 1.0, 2.0), False).pack()), "has 3 parameters"),
    ("NEXT", message(Kind.ASSIGN, Assign((0.5, 1.0), False).pack(), simulation=-1), "ASSIGN of simulation -1"),
    ("HELLO", message(Kind.WELCOME, Welcome(0, 1, 1, 0, 0, False, (), (), (), "").pack()), "names no trainer rank"),
    ("ANNOUNCE", message(Kind.ACCEPT, Accept((0,), (True,)).pack()), "ACCEPT has 1 fields, announced were 2"),
    ("END", message(Kind.STREAMED, None), "ends before byte 24"),
    ("END", message(Kind.REFUSE, None), "ends before byte 4"),
]


@pytest.mark.parametrize(("kind", "answer", "text"), WRONG, ids=[text for _, _, text in WRONG])
def test_an_answer_that_is_wrong_is_an_error_of_the_clients_own(kind: str, answer: list[bytes], text: str) -> None:
    with (
        pytest.raises(WireError, match=text),
        Client(transport=Scripted(**{kind: answer}), incarnation=LIFE) as client,
    ):
        simulation = client.next_simulation()
        assert simulation is not None
        simulation.announce(u=Field((4,)), cell_volumes=Field((4,), static=True))
        simulation.send(0, u=np.zeros(4))
        simulation.finish()


@pytest.mark.parametrize(
    "answer",
    [[b"nonsense"], message(Kind.ALIVE, None), message(Kind.REFUSE, None), message(Kind.WELCOME)],
    ids=["nonsense", "alive", "refuse", "welcome"],
)
def test_a_wrong_answer_to_a_heartbeat_reaches_the_caller_and_the_thread_lives(answer: list[bytes]) -> None:
    connection = _Beats([answer, message(Kind.ALIVE, b"\0")])
    beat = Heartbeat(connection, b"c" * 16, LIFE, 60.0, 60.0)
    beat.start()
    assert connection.heard.wait(10)  # the answer after it was taken too
    with pytest.raises(WireError):
        beat.check_server()
    beat.close()
    assert heartbeat(b"\x01" * 50) > 0
