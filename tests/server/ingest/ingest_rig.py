"""An `Ingest` with its buffer, validation store and ledgers, and the messages that a solver sends to it."""

from __future__ import annotations

import numpy as np

from penstock_client.payloads import FieldAnnouncement, Refuse
from penstock_client.stream_payloads import Begin, Streamed
from penstock_client.wire import Dtype, Header, Kind, unpack
from penstock_server.buffer import Buffer
from penstock_server.ingest import Ingest, Ledger, SampleSinks, SimulationIds
from penstock_server.study import FieldSection, SamplesSection, agree
from penstock_server.telemetry import Metrics
from penstock_server.training import Normaliser
from penstock_server.validation import ValidationStore

POINTS = 6
PEER = b"peer"


class Rig:
    """An `Ingest` for the fields U (3 components) and p and the simulations 0 to 3, of which 3 is held out."""

    def __init__(
        self,
        window: int = 1,
        stride: int = 1,
        time: str = "step",
        capacity: int = 50,
        credit: int = 1000,
        redraws: int = 0,
        limit: int | None = None,
        shared_memory: bool = True,
    ) -> None:
        wanted = {"U": FieldSection(components=3), "p": FieldSection()}
        announced = [
            FieldAnnouncement("U", Dtype.FLOAT64, 3, (POINTS,)),
            FieldAnnouncement("p", Dtype.FLOAT32, 1, (POINTS,)),
        ]
        self.schema = agree(announced, wanted, ("a", "b"), SamplesSection(window=window), None)
        spec = self.schema.spec
        self.buffer = Buffer(spec, policy="fifo", capacity=capacity, batch_size=1)
        self.validation, self.normaliser = ValidationStore(spec), Normaliser(spec)
        self.trained, self.validated, self.metrics = Ledger(), Ledger(), Metrics("rank-0", "test")
        self.static: dict[str, np.ndarray] = {}
        self.ingest = Ingest(
            self.schema,
            SamplesSection(window=window, stride=stride, time=time),
            SimulationIds(training=3, held_out=1, replacements=redraws),
            SampleSinks(
                buffer=self.buffer,
                put=lambda slots: self.buffer.try_commit_many(slots) == len(slots),
                validation=self.validation,
                statistics=self.normaliser.update,
                moments=self.normaliser.merge,
                trained=self.trained,
                validated=self.validated,
                on_static=self.static.__setitem__,
            ),
            incarnation=7,
            credit=credit,
            metrics=self.metrics,
            limit=limit,
            shared_memory=shared_memory,
        )

    def say(self, *frames: bytes, peer: bytes = PEER):
        return [(unpack(f[0]), f[1]) for _, f in self.ingest.handle(peer, list(frames), 0.0)]

    def begin(self, simulation: int = 0, attempt: int = 1, ranks: int = 1, rank: int = 0, peer: bytes = PEER) -> None:
        header = Header(Kind.BEGIN, 7, simulation, attempt, rank=rank)
        replies = self.say(header.pack(), Begin(ranks, (0.25, 0.5)).pack(), peer=peer)
        assert replies[0][0].kind is Kind.CREDIT, replies

    def piece(self, field: str, values: np.ndarray, step: int = 0, offset: int = 0, **header) -> list[bytes]:
        number = self.schema.ids[field]
        base = {"incarnation": 7, "simulation": 0, "attempt": 1, "dtype": self.schema.dtypes[number], **header}
        made = Header(Kind.PIECE, step=step, field=number, offset=offset, count=values.size, time=0.125 * step, **base)
        return [made.pack(), values.tobytes()]

    def step(self, step: int, **header) -> list[bytes]:
        """Both pieces of a time step in one message."""
        u, p = values_of(step)
        return self.piece("U", u, step, **header) + self.piece("p", p, step, **header)

    def end(self, simulation: int = 0, attempt: int = 1, rank: int = 0, peer: bytes = PEER) -> Streamed:
        ((header, payload), *_) = self.say(Header(Kind.END, 7, simulation, attempt, rank=rank).pack(), peer=peer)
        assert header.kind is Kind.STREAMED
        return Streamed.unpack(payload)

    def refusal(self, *frames: bytes, peer: bytes = PEER) -> Refuse:
        refusals = [Refuse.unpack(p) for h, p in self.say(*frames, peer=peer) if h.kind is Kind.REFUSE]
        assert len(refusals) == 1
        assert self.metrics.refusals()[refusals[0].reason.name.lower()] >= 1
        return refusals[0]


def values_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    """U and p of a time step."""
    u = np.arange(3 * POINTS, dtype="<f8") + 100 * step
    return u, np.arange(POINTS, dtype="<f4") - step


def indices(rig: Rig, field: str, points: list[int], rank: int, dtype: Dtype = Dtype.INT32, **header) -> list[bytes]:
    """The message with a solver rank's index list for a field."""
    values = np.array(points, "<i4" if dtype is Dtype.INT32 else "<i8")
    base = {"count": values.size, "dtype": dtype, **header}
    base = {"simulation": 0, **base}
    return [Header(Kind.INDICES, 7, attempt=1, field=rig.schema.ids[field], rank=rank, **base).pack(), values.tobytes()]


def two_ranks() -> Rig:
    """An ingest to which the solver ranks 0 and 1 of simulation 0 stream, as the peers x and y."""
    rig = Rig()
    for rank, peer in enumerate((b"x", b"y")):
        rig.begin(ranks=2, rank=rank, peer=peer)
    return rig
