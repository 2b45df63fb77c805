"""What a simulation leaves behind in the server once it has ended: a study may have a hundred thousand of them."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_client import Client
from penstock_client.memory_transport import MemoryTransport
from penstock_server.buffer import Buffer, Reserved
from penstock_server.coordinator import Coordinator, Point, make_plan, make_welcome
from penstock_server.ingest import Ingest, Ledger, SampleSinks, SimulationIds
from penstock_server.study import Schema, Study
from penstock_server.telemetry import EventLog, Metrics, ServerRun
from penstock_server.training import Normaliser
from penstock_server.validation import ValidationStore

POINTS, STEPS = 500, 12
WARM, MANY = 100, 600  # simulations
# Bytes, at most: an id and an entry in the coordinator's table, in the ledger's and in ingest's. One time step has 2,000.
LEFT_BEHIND = 800


class Server:
    """A study's coordinator and ingest without sockets and training: samples are drawn as soon as they are there."""

    def __init__(self, study: Study, events: EventLog, plan: list[Point]) -> None:
        self._study, self._number = study, len(plan)
        self.trained, self.metrics = Ledger(), Metrics("test", "test")
        self.coordinator = Coordinator(
            plan,
            make_welcome(study, ("data",), in_process=True),
            study,
            ServerRun(1, events, self.metrics),
            on_schema=self._configure,
        )
        handlers = {"control": self.coordinator.handle, "data": lambda *message: self.ingest.handle(*message)}
        self.client = Client(transport=MemoryTransport({name: _direct(h) for name, h in handlers.items()}))

    def serve(self, number: int) -> None:
        """Let so many simulations run to their end."""
        for _ in range(number):
            simulation = self.client.next_simulation()
            assert simulation is not None
            for step in range(STEPS):
                simulation.send(step, T=np.full(POINTS, step, np.float32))
            simulation.finish()

    def _configure(self, schema: Schema) -> bool:
        self._buffer = Buffer(schema.spec, policy="fifo", capacity=4, batch_size=1)
        normaliser = Normaliser(schema.spec)
        self.ingest = Ingest(
            schema,
            self._study.samples,
            SimulationIds(training=self._number, held_out=0),
            SampleSinks(
                buffer=self._buffer,
                put=self._put,
                validation=ValidationStore(schema.spec),
                statistics=normaliser.update,
                moments=normaliser.merge,
                trained=self.trained,
                validated=Ledger(),
                on_static=lambda _name, _values: None,
            ),
            incarnation=1,
            credit=self._study.buffer.credit,
            metrics=self.metrics,
        )
        return True

    def _put(self, slots: Reserved) -> bool:
        return self._buffer.commit_many(slots) == 1 and self._buffer.get(1) is not None


def _direct(handle: Callable[..., Any]) -> Callable[[bytes, list[bytes]], list[list[bytes]]]:
    return lambda peer, frames: [reply for _, reply in handle(peer, frames, time.monotonic())]


@pytest.mark.parametrize("window", [1, 4])
def test_a_simulation_that_has_ended_leaves_a_few_hundred_bytes_behind(
    window: int, tmp_path: Path, heat_study: Callable[..., Study]
) -> None:
    study = heat_study(
        solver={"simulations": MANY, "validation_simulations": 0}, samples={"window": window, "stride": window}
    )
    server = Server(study, EventLog(tmp_path / "events.jsonl"), make_plan(study))
    server.serve(WARM)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        server.serve(MANY - WARM)
        gc.collect()  # cycles that wait for their collection, the longer the more objects there are, are not left behind
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert server.coordinator.production_over
    assert server.trained.total() == MANY * (STEPS // window)
    assert server.metrics.refusals() == {}
    assert (after - before) / (MANY - WARM) < LEFT_BEHIND
