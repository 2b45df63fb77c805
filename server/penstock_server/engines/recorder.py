"""The receiver of a recording: takes the stream in the place of a trainer rank and writes it into one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock_client.reasons import Reason
from penstock_client.wire import Header, Kind
from penstock_server.buffer import available_memory
from penstock_server.coordinator import Point
from penstock_server.ingest import Ingest, Ledger, SampleSinks, SimulationIds, allowance, refuse_before_schema
from penstock_server.network import Admissions, Assignment, Envelope, Frames, Message
from penstock_server.recording import RecordingWriter
from penstock_server.study import Schema, Study
from penstock_server.telemetry import Metrics


class Recorder:
    """Writes every complete time step of every simulation into the file, each once.

    It has the interface of a trainer rank. Ingest sees all simulations as held-out ones, whose time steps are passed on
    complete and unbuffered.

    Args:
        study: the study.
        plan: its simulations, by id.
        path: of the recording.
        incarnation: of the server.
        on_static: called with the name of each static field that has arrived.

    Attributes:
        metrics: of this process.
        admissions: what the coordinator has assigned.
        arrived: ledger of the time steps in the file.
        over: why no more data are taken; "" while they are.
        writer: writes the file; None until the fields are known.
        complete: the file is complete. What is still under way from simulations that were interrupted is refused.
    """

    def __init__(
        self, study: Study, plan: Sequence[Point], path: Path, *, incarnation: int, on_static: Callable[[str], None]
    ) -> None:
        self._study, self._plan, self._path = study, plan, path
        self._incarnation, self._on_static = incarnation, on_static
        self.metrics = Metrics("recorder", study.study.name)
        self.admissions = Admissions()
        self.arrived = Ledger()
        self.over = ""
        self.complete = False
        self.writer: RecordingWriter | None = None
        self._ingest: Ingest | None = None

    def configure(self, schema: Schema) -> None:
        """Open the file for these fields."""
        study, spec = self._study, schema.spec
        points = np.array([point.parameters[: len(spec.parameters)] for point in self._plan], np.float64)
        self.writer = RecordingWriter(
            self._path,
            spec,
            points=points.reshape(len(self._plan), len(spec.parameters)),
            held_out=np.array([point.validation for point in self._plan]),
            about={"study": study.study.name, "seed": study.study.seed, "time": study.samples.time},
            seeds=study.parameters.seeds,
        )
        self._ingest = Ingest(
            schema,
            study.samples,
            SimulationIds(training=0, held_out=len(self._plan)),
            SampleSinks(
                buffer=None,
                put=lambda _slots: False,
                validation=self.writer,
                statistics=lambda _inputs, _targets: None,
                moments=lambda _inputs, _fields: None,
                trained=Ledger(),
                validated=self.arrived,
                on_static=self._take_static,
            ),
            incarnation=self._incarnation,
            credit=study.buffer.credit,
            metrics=self.metrics,
            admissions=self.admissions,
            limit=allowance(study, schema, available_memory()),
            shared_memory=study.server.shared_memory,
        )

    def handle(self, peer: bytes, frames: Frames, now: float, worker: str) -> list[Message]:
        """Deal with one message of the data socket; see `Ingest.handle`."""
        if self.complete:
            envelope = Envelope(self._incarnation, self.metrics.refused)
            text = "the recording has ended and takes no more data"
            return [(peer, envelope.refuse(Header(Kind.REFUSE), Reason.STUDY_OVER, text))]
        if self._ingest is None:
            return refuse_before_schema(peer, self._incarnation, self.metrics)
        return self._ingest.handle(peer, frames, now, worker)

    def release(self, assignment: Assignment) -> list[Message]:
        """Give back what is held for an attempt that has ended; called on the thread of `handle`."""
        if self._ingest is not None:
            self._ingest.release(assignment)
        return []

    def tick(self, _now: float) -> list[Message]:
        """Give back what is held for clients that have gone; called about once a second on the thread of `handle`."""
        if self._ingest is not None:
            self._ingest.tick()
        return []

    def _take_static(self, name: str, values: NDArray[np.float64]) -> None:
        assert self.writer is not None
        self.writer.add_static(name, values)
        self._on_static(name)
