"""What a client takes in: the payload codecs, and a whole session with a server that answers nearly right.

Whatever the server says, the client raises nothing but its own errors, and never waits for good.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from choices import Choices
from mutations import VECTORS, Frames, mutated, mutated_bytes, vector_messages

from penstock_client import payloads, stream_payloads
from penstock_client.client import Client
from penstock_client.errors import PenstockError, ServerLost, WireError
from penstock_client.heartbeat import Heartbeat
from penstock_client.payloads import Accept, Alive, Assign, Refuse, Welcome
from penstock_client.reasons import Reason
from penstock_client.simulation import Field
from penstock_client.stream_payloads import Streamed
from penstock_client.wire import Header, Kind, unpack

# --- codecs -------------------------------------------------------------------------------------------------------------

CODECS: dict[Kind, Any] = {
    kind: getattr(module, kind.name.title())
    for module in (payloads, stream_payloads)
    for kind in Kind
    if hasattr(module, kind.name.title())
}
_PAYLOADS = [
    (Kind[m["header"]["kind"]], bytes.fromhex(m["payload_hex"])) for m in VECTORS["messages"] if "payload" in m
]
_PAYLOADS += [(Kind[i["kind"]], bytes.fromhex(i["hex"])) for i in VECTORS["invalid_payloads"]]
_PAYLOADS = [(kind, data) for kind, data in _PAYLOADS if kind in CODECS]
_HEADERS = [m[0] for m in vector_messages()] + [bytes.fromhex(i["hex"]) for i in VECTORS["invalid_headers"]]


def codecs(data: bytes) -> int:
    """Headers and payloads: read, or refused with WireError; what was read is written and read again to the same."""
    c = Choices(data)
    tried = 0
    while c.more:
        tried += 1
        if c.byte() & 3 == 0:
            try:
                header = unpack(_changed(c, c.of(_HEADERS)))
            except WireError:
                continue
            assert unpack(header.pack()).pack() == header.pack()
            continue
        kind, payload = c.of(_PAYLOADS)
        codec = CODECS[kind if c.byte() & 7 else c.of(tuple(CODECS))]
        try:
            message = codec.unpack(_changed(c, payload))
        except WireError:
            continue
        assert codec.unpack(message.pack()).pack() == message.pack()
    return tried


def _changed(c: Choices, data: bytes) -> bytes:
    for _ in range(c.byte() & 3):
        if c.byte() & 1:
            data = mutated_bytes(c, data)
        elif len(data) >= 8:
            at = c.below(len(data) - 7)
            data = data[:at] + c.number(4) + data[at + 4 :]
    return data


# --- a session ----------------------------------------------------------------------------------------------------------

_LIFE = 7
_WELCOME = Welcome(0, 60_000, 200, 0, 0, False, ("data-0", "data-1"), ("a", "b"), ("u",), "{}")
_RIGHT: dict[Kind, tuple[Kind, bytes]] = {
    Kind.HELLO: (Kind.WELCOME, _WELCOME.pack()),
    Kind.NEXT: (Kind.ASSIGN, Assign((0.5, 2.0), False).pack()),
    Kind.ANNOUNCE: (Kind.ACCEPT, Accept((0, 65536), (True, True)).pack()),
    Kind.BEGIN: (Kind.CREDIT, b""),
    Kind.PIECE: (Kind.CREDIT, b""),
    Kind.BLOCK: (Kind.CREDIT, b""),
    Kind.CREDIT: (Kind.CREDIT, b""),
    Kind.END: (Kind.STREAMED, Streamed(1, 0, 0).pack()),
    Kind.FINISH: (Kind.FINISHED, b""),
    Kind.HEARTBEAT: (Kind.ALIVE, Alive(False).pack()),
}
_SEEDS: list[Frames] = [
    *vector_messages(),
    *[[Header(kind, _LIFE, 0, 1, count=500).pack(), payload] for kind, payload in _RIGHT.values()],
    *[[Header(Kind.REFUSE, _LIFE, 0, 1).pack(), Refuse(reason, "no").pack()] for reason in Reason],
]


class _Answers:
    """A connection to a server that answers each message nearly right, until the bytes are used up; then it is silent."""

    def __init__(self, c: Choices, heard: list[int]) -> None:
        self._c, self._heard = c, heard
        self._waiting: list[Frames] = []
        self._pieces = 0  # since BEGIN

    def send(self, frames: Sequence[Any]) -> None:
        header = unpack(bytes(frames[0]))
        kind, payload = _RIGHT[header.kind]
        self._pieces = 0 if header.kind is Kind.BEGIN else self._pieces + len(frames) // 2
        if header.kind is Kind.END:
            payload = Streamed(self._pieces, 0, 0).pack()
        answer = [
            header._replace(kind=kind, simulation=max(0, header.simulation), attempt=1, count=500).pack(),
            payload,
        ]
        for _ in range(1 + (self._c.byte() & 15 == 15)):
            how = self._c.byte()
            if how & 3 == 0:
                answer = mutated(self._c, [answer])
            elif how & 31 == 1:
                answer = mutated(self._c, _SEEDS)
            # A heartbeat would need another thread; it has a target of its own.
            if len(answer) > 1 and len(answer[0]) == 64 and answer[0][6] == Kind.WELCOME:
                answer = [answer[0], bytes(4) + answer[1][4:], *answer[2:]]
            if answer:
                self._waiting.append(answer)

    def receive(self, timeout: float) -> list[bytes] | None:
        if self._waiting:
            self._heard[0] += 1
            return self._waiting.pop(0)
        if timeout > 0:
            raise ServerLost("the server says no more")
        return None

    def close(self, *, deliver: bool = True) -> None:
        self._waiting.clear()


class _Transport:
    def __init__(self, c: Choices, heard: list[int]) -> None:
        self._c, self._heard = c, heard

    def connect(self, _endpoint: str, *, control: bool = False) -> _Answers:
        return _Answers(self._c, self._heard)

    def close(self, *, deliver: bool = True) -> None:
        """Nothing to give back."""


_U = np.arange(8.0).reshape(4, 2)


def session(data: bytes) -> int:
    """A client from HELLO to FINISH; returns how many answers it took in."""
    c = Choices(data)
    heard = [0]
    while c.more:
        before = heard[0]
        try:
            with Client(transport=_Transport(c, heard), incarnation=_LIFE) as client:
                simulation = client.next_simulation()
                if simulation is not None:
                    simulation.announce(u=Field((4,), 2), cell_volumes=Field((4,), static=True))
                    simulation.send_static(cell_volumes=_U[:, 0])
                    for step in range(1 + c.byte() % 8):
                        simulation.send(step, 0.5 * step, u=_U)
                    simulation.finish()
        except PenstockError:
            pass
        heard[0] = max(heard[0], before + 1)
    return heard[0]


class _Beats:
    """A connection on which answers to heartbeats lie ready."""

    def __init__(self, answers: list[Frames]) -> None:
        self._answers = answers
        self.heard = threading.Event()

    def send(self, frames: Sequence[Any]) -> None:
        """Nobody listens."""

    def receive(self, timeout: float) -> list[bytes] | None:
        if self._answers:
            return self._answers.pop(0)
        self.heard.set()
        return None

    def close(self, *, deliver: bool = True) -> None:
        self.heard.set()


def heartbeat(data: bytes) -> int:
    """Answers to heartbeats, on the heartbeat's own thread; returns how many there were."""
    c = Choices(data)
    answers = []
    while c.more:
        right = [Header(Kind.ALIVE, _LIFE, c.byte() & 1, 1).pack(), Alive(bool(c.byte() & 1)).pack()]
        if answer := mutated(c, [right] if c.byte() & 1 else _SEEDS):
            answers.append(answer)
    number, connection = len(answers), _Beats(answers)
    beat = Heartbeat(connection, b"c" * 16, _LIFE, 60.0, 60.0)
    beat.start()
    try:
        beat.serve(0, 1)
        assert connection.heard.wait(10)
        assert not answers, "the heartbeat's thread has died"
        beat.check_server()
        beat.check_wanted()
    except PenstockError:
        pass
    finally:
        beat.close()
    return number
