"""One trainer rank: what ingest takes goes through its buffer into its model, until the study's end.

The same rank runs in both engines. In a Ray actor a socket's thread calls `handle` while `train` blocks until the end; the inline engine
calls `handle` and `train_batch` itself, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from penstock_client.atomic_file import replacing
from penstock_server.buffer import Buffer, Slot
from penstock_server.checkpoint import Checkpoint
from penstock_server.ingest import Ingest, Ledger, SampleSinks, SimulationIds, refuse_before_schema
from penstock_server.network import Message
from penstock_server.study import Batch, Schema, Study
from penstock_server.trainer_rank.loop import TrainingLoop
from penstock_server.trainer_rank.redistribution import Part
from penstock_server.trainer_rank.sample_source import SampleSource


class TrainerRank(TrainingLoop):
    """A training loop whose samples come from clients: ingest and ledgers before, the buffer in between.

    Args:
        study: the whole study. directory: its run directory. held_out: simulation ids from here on are validation simulations;
            simulations: their number, both kinds; the ids after them are of training simulations that replace failed ones.
        put: how a filled slot is committed; None: `Buffer.commit`, which blocks.
        coordinator_state: asked for at each checkpoint: what the coordinator must remember.
        on_static: told the name of each static field that has arrived.
        on_over: called when training has ended, before what clients still send is refused.
    """

    def __init__(
        self,
        study: Study,
        directory: Path,
        *,
        rank: int,
        incarnation: int,
        held_out: int,
        simulations: int,
        put: Callable[[Slot], bool] | None = None,
        coordinator_state: Callable[[], dict[str, Any]] = dict,
        on_static: Callable[[str], None] = lambda _name: None,
        on_over: Callable[[], None] = lambda: None,
        restore: Checkpoint | None = None,
    ) -> None:
        super().__init__(study, directory, rank=rank, restore=restore)
        self.trained = Ledger()
        self.validated = Ledger()
        self._incarnation, self._held_out = incarnation, range(held_out, simulations)
        self.simulations = simulations + study.solver.redraws
        self._put, self._coordinator_state, self._on_static = put, coordinator_state, on_static
        self._on_over = on_over
        self._production_ended = False
        self._static: dict[str, NDArray[np.float64]] = {}
        self.buffer: Buffer | None = None

    def configure(self, schema: Schema) -> None:
        """Make everything whose size depends on the fields. Called once, before any client may stream. Raises as `set_up`."""
        study = self.study
        self.set_up(schema)
        buffer = Buffer(
            schema.spec,
            policy=study.buffer.policy,
            capacity=self.share.capacity,
            watermark=self.share.watermark,
            presentations_per_sample=study.buffer.presentations_per_sample,
            batch_size=self.share.batch_size,
            seed=study.study.seed + 1000 * self.rank,
            pin=self.trainer.device.type == "cuda",
        )
        self.load(buffer)
        self.ingest = Ingest(
            schema,
            study.samples,
            SimulationIds(self._held_out.start, len(self._held_out), study.solver.redraws),
            SampleSinks(
                buffer=buffer,
                put=self._put or buffer.commit,
                validation=self.validation,
                normaliser=self.normaliser,
                trained=self.trained,
                validated=self.validated,
                on_static=self._save_static,
            ),
            incarnation=self._incarnation,
            credit=study.buffer.credit,
            metrics=self.metrics,
        )
        self.buffer = buffer
        if self._production_ended:
            self.end_production()
        self.begin(buffer)

    def handle(self, peer: bytes, frames: list[bytes], now: float) -> list[Message]:
        """One message of the data socket; see `Ingest.handle`."""
        if self.buffer is None:
            return refuse_before_schema(peer, self._incarnation, self.metrics)
        return self.ingest.handle(peer, frames, now)

    def arrived(self, simulation: int) -> int:
        """Samples of a training simulation, or time steps of a held-out one, that have arrived here."""
        return (self.validated if simulation in self._held_out else self.trained).count(simulation)

    def step(self, batch: Batch | None) -> None:
        """As in any training loop; once production has ended and `min_batches` are done, the buffer drains."""
        super().step(batch)
        if self._production_ended and self.trainer.batches >= self.study.training.min_batches:
            assert self.buffer is not None
            self.buffer.drain()

    def conclude(self) -> None:
        """As in any training loop, which takes a while: meanwhile nobody is to be given a simulation that is wanted no more."""
        self._on_over()
        super().conclude()

    def end_production(self) -> None:
        """No time step will come any more: what the buffer holds is trained on, then training ends."""
        self._production_ended = True
        if self.buffer is not None:
            self.buffer.end_production(drain=self.trainer.batches >= self.study.training.min_batches)

    def drop_incomplete(self) -> list[Message]:
        """Production has ended: give up, on the thread that takes pieces, the time steps that failed simulations have left behind."""
        if self.buffer is not None:
            self.ingest.give_up_incomplete()
        return []

    def state(self) -> dict[str, Any]:
        coordinator = {"coordinator": self._coordinator_state()} if self.rank == 0 else {}
        state = {
            **coordinator,
            # The ledgers before the buffer: what ingest adds in between is in the buffer, and `load_parts` marks it.
            "ledger": {"trained": self.trained.state_dict(), "validated": self.validated.state_dict()},
            **super().state(),
        }
        state["counts"]["incomplete"] += self.ingest.incomplete()  # their missing pieces will not come any more
        return state

    def load_parts(self, part: Part, source: SampleSource) -> None:
        """As in any training loop; and the ledgers."""
        super().load_parts(part, source)
        ledger = part("ledger")
        self.trained.load_state_dict(ledger["trained"])
        self.validated.load_state_dict(ledger["validated"])
        assert self.restore is not None
        if self.restore.ranks == self.study.training.ranks and isinstance(source, Buffer):
            # Otherwise what this buffer has been dealt has been marked where it belongs.
            for simulation, sample in source.identifiers():
                self.trained.mark(simulation, sample)

    def load_counts(self, counts: dict[str, Any]) -> None:
        """As in any training loop; but received is what is marked or was a duplicate.

        Samples go on coming while a checkpoint's parts are read one after the other: its own count may be ahead of its ledger, or behind.
        """
        super().load_counts({**counts, "received": self.trained.total() + counts["duplicates"]})

    def _save_static(self, name: str, values: NDArray[np.float64]) -> None:
        """Add a static field to mesh.h5, which is replaced as a whole: whoever dies meanwhile leaves the file before."""
        self._static[name] = values
        path = self.directory / "mesh.h5"
        try:
            with replacing(path) as temporary, h5py.File(temporary, "w") as file:
                for field, content in (_read_static(path) | self._static).items():
                    file[field] = content
        except OSError as error:  # pictures will lack it; the study needs it for nothing else
            self.events.write("mesh_lost", field=name, message=str(error))
            self._warnings.append(f"mesh.h5: {name} could not be written ({error})")
        self._on_static(name)


def _read_static(path: Path) -> dict[str, NDArray[np.float64]]:
    if not path.is_file():
        return {}
    with h5py.File(path) as file:
        return {name: dataset[()] for name, dataset in file.items()}
