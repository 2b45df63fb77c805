"""Fuzz ingest with the messages of strangers, beside one client that sends only valid messages."""

from __future__ import annotations

import warnings

import numpy as np
from choices import Choices
from mutations import Frames, mutated, vector_messages
from server_checks import HELD_OUT, LIFE, N_SIMULATIONS, PEERS, POINTS, SCHEMAS, about, check_answers, held, spare

from penstock_client.shared_memory import SharedMemory
from penstock_client.stream_payloads import Begin, Reference, Streamed
from penstock_client.wire import REFERENCE_BIT, STATIC_STEP, Dtype, Header, Kind, unpack
from penstock_server.buffer import Buffer, Reserved
from penstock_server.ingest import Ingest, Ledger, SampleSinks, SimulationIds
from penstock_server.study import SamplesSection
from penstock_server.telemetry import Metrics
from penstock_server.training import Normaliser
from penstock_server.validation import ValidationStore

VALID = 5  # the simulation that the valid client streams


def values_of(step: int) -> tuple[np.ndarray, np.ndarray]:
    """U and p of a time step."""
    return np.arange(3 * POINTS, dtype="<f8") + 100 * step, np.arange(POINTS, dtype="<f4") - step


def piece(field: int, values: np.ndarray, step: int, simulation: int, offset: int = 0, attempt: int = 1) -> Frames:
    dtype = Dtype.FLOAT32 if values.dtype.itemsize == 4 else Dtype.FLOAT64
    header = Header(Kind.PIECE, LIFE, simulation, attempt, step, field, 0, offset, values.size, dtype, 0.25 * step)
    return [header.pack(), values.tobytes()]


def block(steps: range, simulation: int, attempt: int = 1) -> Frames:
    rows = b"".join(values.tobytes() for step in steps for values in values_of(step))
    times = np.arange(1, len(steps)) * 0.25 * steps.step
    header = Header(Kind.BLOCK, LIFE, simulation, attempt, steps.start, offset=steps.step, count=len(steps))
    return [header.pack(), rows + times.tobytes()]


def begin(simulation: int, attempt: int = 1, ranks: int = 1, rank: int = 0) -> Frames:
    return [Header(Kind.BEGIN, LIFE, simulation, attempt, rank=rank).pack(), Begin(ranks, (0.25, 0.5)).pack()]


def end(simulation: int, attempt: int = 1, rank: int = 0) -> Frames:
    return [Header(Kind.END, LIFE, simulation, attempt, rank=rank).pack()]


MEMORY = SharedMemory(1 << 16)
"""Memory of strangers, with the fields of some time steps and bytes that are no numbers."""


def _seeds_by_reference() -> list[Frames]:
    """Offers of the memory, and pieces in it."""
    seeds: list[Frames] = [[Header(Kind.SHARE, LIFE, 0, 1).pack(), MEMORY.share().pack()]] * 4
    at = 64
    for step in range(4):
        for field, values in enumerate(values_of(step)):
            header, payload = piece(field, values, step, 0)
            MEMORY._bytes[at : at + len(payload)] = payload
            reference = Reference(at, len(payload)).pack()
            seeds.append([header[:6] + bytes([header[6] | REFERENCE_BIT]) + header[7:], reference])
            at += len(payload)
    header, payload = block(range(3), 0)
    MEMORY._bytes[at : at + len(payload)] = payload
    seeds.append([header[:6] + bytes([header[6] | REFERENCE_BIT]) + header[7:], Reference(at, len(payload)).pack()])
    at += len(payload)
    MEMORY._bytes[at : at + 4096] = b"\xff" * 4096  # NaN
    return seeds


def _data_seeds() -> list[Frames]:
    seeds = _seeds_by_reference()
    for simulation in (0, 1, HELD_OUT):
        seeds += [begin(simulation), begin(simulation, 2), begin(simulation, 1, 2, 0), begin(simulation, 1, 2, 1)]
        seeds += [end(simulation), end(simulation, 2), end(simulation, 1, 1)]
        seeds += [block(range(3), simulation), block(range(1, 7, 2), simulation), block(range(12), simulation, 2)]
        for step in range(4):
            u, p = values_of(step)
            seeds += [
                piece(0, u, step, simulation) + piece(1, p, step, simulation),
                piece(0, u[:5], step, simulation),
                piece(0, u[5:], step, simulation, 5),
                piece(1, p, step, simulation),
                piece(0, u, step, simulation, attempt=2) + piece(1, p, step, simulation, attempt=2),
            ]
    centres = np.arange(3.0 * POINTS)
    seeds += [piece(1 << 16, centres, STATIC_STEP, 0), piece((1 << 16) + 1, centres[:POINTS], STATIC_STEP, 0)]
    return seeds + vector_messages()


DATA_SEEDS = _data_seeds()


class IngestRig:
    """An ingest with everything that it feeds, and one client that sends only valid messages."""

    metrics = Metrics("rank-0", "fuzz")  # shared by all rigs: it only counts, and is slow to make

    def __init__(self, window: int = 1, time: str = "step") -> None:
        schema = SCHEMAS[window]
        self.buffer = Buffer(schema.spec, policy="fifo", capacity=40, batch_size=1, spare=8)
        # What is not written is NaN, and `put` looks for it: a sample with a hole does not pass unseen.
        for rows in (self.buffer._contents.storage.inputs, self.buffer._contents.storage.targets):
            rows.fill(np.nan)
        self.validation, self.normaliser = ValidationStore(schema.spec), Normaliser(schema.spec)
        self.validation._block_rows = 64  # a usual block takes more memory than all that a message may make it take
        self.trained, self.validated = Ledger(), Ledger()
        self.window, self.step, self.received = window, 0, 0
        self.opened: dict[bytes, bytes] = {}  # the start of the header that opened each peer's stream
        self.ingest = Ingest(
            schema,
            SamplesSection(window=window, time=time),
            SimulationIds(training=HELD_OUT, held_out=N_SIMULATIONS - HELD_OUT),
            SampleSinks(
                buffer=self.buffer,
                put=self.put,
                validation=self.validation,
                statistics=self.normaliser.update,
                moments=self.normaliser.merge,
                trained=self.trained,
                validated=self.validated,
                on_static=self.static,
            ),
            incarnation=LIFE,
            credit=1000,
            metrics=self.metrics,
        )

    def put(self, slots: Reserved) -> bool:
        for position, sample in enumerate(slots.numbers(0, len(slots))):
            inputs, targets = slots.arrays(position)
            assert np.isfinite(inputs).all(), f"inputs {inputs}"
            assert np.isfinite(targets).all(), f"targets {targets}"
            if slots.simulation == VALID:
                for row in range(self.window):
                    np.testing.assert_array_equal(targets[row], np.concatenate(values_of(sample + row)))
        self.received += len(slots)
        while self.buffer.try_commit_many(slots, slots.settled) < len(slots):
            if self.buffer.try_get(1) is None:
                return False
        return True

    def static(self, name: str, values: np.ndarray) -> None:
        assert np.isfinite(values).all(), name

    def hear(self, peer: bytes, frames: Frames) -> None:
        """Handle a message of a stranger and check the answers."""
        answers = self.ingest.handle(peer, frames, 0.0)
        check_answers(answers, {Kind.CREDIT, Kind.STREAMED, Kind.SHARED, Kind.REFUSE}, peer, len(frames) + 2)
        for _, (header, _) in answers:
            if header[6] == Kind.CREDIT:
                self.opened[peer] = header

    def begin(self) -> None:
        ((_, (header, _)),) = self.ingest.handle(b"valid", begin(VALID), 0.0)
        assert unpack(header).kind is Kind.CREDIT

    def valid_step(self) -> None:
        u, p = values_of(self.step)
        frames = piece(0, u, self.step, VALID) + piece(1, p, self.step, VALID)
        for _, (header, _) in self.ingest.handle(b"valid", frames, 0.0):
            assert unpack(header).kind is Kind.CREDIT
        self.step += 1

    def conclude(self) -> None:
        """Check that the valid client's stream is whole and that all counts agree."""
        ((_, (header, payload)), *_) = self.ingest.handle(b"valid", end(VALID), 0.0)
        assert unpack(header).kind is Kind.STREAMED
        assert Streamed.unpack(payload) == Streamed(2 * self.step, 0, 0)
        assert self.trained.count(VALID) == max(0, self.step - self.window + 1)
        assert self.trained.total() == self.received == self.buffer.stats().received
        assert self.validated.total() == len(self.validation)
        for simulation, steps in self.validation.simulations().items():
            for step in steps:
                for row in self.validation.time_step(simulation, step):
                    assert bool(row.isfinite().all()), f"held-out time step {step}"
        for name, size in held(self.ingest).items():
            assert size <= 64, f"{size} entries in {name}"


def ingest(data: bytes) -> int:
    """Send messages of strangers to a trainer rank; returns how many there were."""
    c = Choices(data)
    how = c.byte()
    rig = IngestRig(window=3 if how & 1 else 1, time="physical" if how & 2 else "step")
    rig.begin()
    heard = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a number that overflows on its way into a sample, for one
        while c.more:
            who = c.byte()
            peer, frames = PEERS[who & 3], mutated(c, DATA_SEEDS)
            if who & 4 and peer in rig.opened:
                frames = about(rig.opened[peer], frames)
            rig.hear(peer, spare(frames, VALID))
            heard += 1
            if heard & 3 == 0:
                rig.valid_step()
        rig.conclude()
    return heard
