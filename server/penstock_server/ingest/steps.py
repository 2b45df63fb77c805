"""What becomes of whole time steps: samples, parts of windows, or held-out time steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_client.wire import Header
from penstock_server.buffer import Reserved, Slot
from penstock_server.ingest.assembly import uncounted
from penstock_server.ingest.blocks import Block, BlockLayout
from penstock_server.ingest.ledger import Ledger
from penstock_server.ingest.pieces import LARGEST, bad_time, not_finite
from penstock_server.ingest.sinks import Floats, SampleSinks, SimulationIds
from penstock_server.ingest.streams import StreamedSimulation
from penstock_server.native import Moments, take
from penstock_server.study import SamplesSection, Schema
from penstock_server.telemetry import Metrics

_FIRST_ROW = np.zeros(1, np.int64)


@dataclass
class Filled:
    """What has been written of a block.

    Attributes:
        moments: statistics of each field, by name; of no use where there is a fault.
        good: number of time steps before the first that is refused.
        fault: why it is refused; None where none is.
    """

    moments: dict[str, Moments]
    good: int
    fault: Refused | None


class WholeSteps:
    """Passes whole time steps on: to validation, to the buffer, or to the windows of their simulation.

    Args:
        schema: the fields.
        samples: the study's [samples].
        ids: which simulations are held out.
        sinks: where time steps go.
        metrics: of this process.
    """

    def __init__(
        self, schema: Schema, samples: SamplesSection, ids: SimulationIds, sinks: SampleSinks, metrics: Metrics
    ) -> None:
        self.layout = BlockLayout(schema, samples)
        self._spec, self._samples, self._held_out = schema.spec, samples, ids.held_out_ids
        self._sinks, self._metrics = sinks, metrics

    def is_single(self, simulation: int) -> bool:
        """Return whether each time step of a simulation is dealt with by itself, and not as a part of windows."""
        return self._samples.window == 1 or simulation in self._held_out

    def are_samples(self, simulation: int) -> bool:
        """Return whether each time step of a simulation is a sample by itself."""
        return self._samples.window == 1 and simulation not in self._held_out

    def arrived(self, simulation: StreamedSimulation, number: int, step: int) -> bool | None:
        """Return whether a time step is to be dropped as a duplicate; None where it lies between two samples.

        Args:
            simulation: of the time step.
            number: id of the simulation.
            step: number of the time step.
        """
        return self._arrived(simulation, number, [step])[0]

    def check_time(self, header: Header) -> None:
        """Raise an error if a physical time is no number that an input can have.

        Args:
            header: of the time step.

        Raises:
            Refused: the time is not finite in float32.
        """
        if self._samples.time == "physical" and not abs(header.time) <= LARGEST:
            raise bad_time(header.step, header.time)

    def inputs(self, into: Floats, parameters: tuple[float, ...], header: Header) -> None:
        """Write the inputs of a time step.

        Args:
            into: shape (n_inputs,).
            parameters: of the simulation, without the seeds.
            header: of the time step.
        """
        into[:-1] = parameters
        into[-1] = header.time if self._samples.time == "physical" else header.step

    def take(
        self,
        simulation: StreamedSimulation,
        header: Header,
        inputs: Floats,
        targets: Floats,
        slot: Slot | None = None,
    ) -> None:
        """Pass on one whole time step.

        Args:
            simulation: of the time step.
            header: of the time step.
            inputs: shape (n_inputs,).
            targets: shape (width,).
            slot: of the buffer, which has these arrays, where the time step is a sample.

        Raises:
            Refused: the study is over.
        """
        sinks = self._sinks
        sinks.on_steps(header.simulation, np.array([header.step]), inputs[None], targets[None], _FIRST_ROW)
        if header.simulation in self._held_out:
            # Marked only now: a time step in the ledger must be in the store, also in a checkpoint made meanwhile.
            sinks.validation.add(header.simulation, header.step, inputs, targets)
            sinks.validated.mark(header.simulation, header.step)
        elif slot is not None:
            self._commit(simulation, slot, header, header.step // self._samples.stride)
        elif simulation.windows is not None:
            for window in simulation.windows.add(header.step, inputs, targets):
                if header.step < simulation.replayed:
                    continue
                if sinks.trained.has(header.simulation, window.index):
                    self.count_duplicates(1)
                    continue
                slot = self.reserve()
                slot.inputs[:], slot.targets[:] = window.inputs, window.targets
                self._commit(simulation, slot, header, window.index)

    def take_block(
        self, simulation: StreamedSimulation, header: Header, parameters: tuple[float, ...], block: Block
    ) -> bool:
        """Pass on a run of time steps.

        Args:
            simulation: of the time steps.
            header: of the block.
            parameters: of the simulation, without the seeds.
            block: the time steps.

        Returns:
            False when all of them are duplicates.

        Raises:
            Refused: a value or a time is not finite; the time steps before it have been passed on.
        """
        block = self._new(simulation, header, block)
        if not len(block):
            return False
        if not self.are_samples(header.simulation):
            for position in range(len(block)):
                self._take_single(simulation, header, parameters, block.part(position, position + 1))
            return True
        counted = int(np.searchsorted(block.steps, simulation.counted))  # in the statistics of a checkpoint
        for run in (block.part(0, counted), block.part(counted, len(block))):
            if len(run):
                self._take_run(header, parameters, run, counted=run.steps[0] < simulation.counted)
        return True

    def reserve(self) -> Slot:
        """Reserve memory for a sample."""
        assert self._sinks.buffer is not None  # only simulations to train on need slots
        return self._sinks.buffer.reserve()

    def count_duplicates(self, number: int) -> None:
        """Count time steps that have arrived before."""
        if number:
            self._metrics.samples_received.inc(number)
            self._metrics.duplicates_dropped.inc(number)

    def _ledger(self, simulation: int) -> tuple[Ledger, int]:
        """Return the ledger of a simulation whose time steps are dealt with one by one, and its stride."""
        if simulation in self._held_out:
            return self._sinks.validated, 1
        return self._sinks.trained, self._samples.stride

    def _new(self, simulation: StreamedSimulation, header: Header, block: Block) -> Block:
        """Return the time steps of a block that are wanted; count the duplicates among the others."""
        steps: list[int] = block.steps.tolist()
        arrived = self._arrived(simulation, header.simulation, steps)
        self.count_duplicates(arrived.count(True))
        if arrived.count(False) == len(block):
            return block
        return block.pick(np.array([i for i, known in enumerate(arrived) if known is False], np.int64))

    def _arrived(self, simulation: StreamedSimulation, number: int, steps: list[int]) -> list[bool | None]:
        """Return for each time step what `arrived` does."""
        if not self.is_single(number):
            windows = simulation.windows
            return [windows is not None and windows.passed(step) for step in steps]
        (ledger, stride), first = self._ledger(number), simulation.replayed
        known = ledger.which(number, [step // stride for step in steps])
        return [None if step < first or step % stride else has for step, has in zip(steps, known, strict=True)]

    def _take_single(
        self, simulation: StreamedSimulation, header: Header, parameters: tuple[float, ...], block: Block
    ) -> None:
        """Pass on the one time step of a block, in arrays of its own."""
        inputs = np.empty((1, self._spec.n_inputs), np.float32)
        targets = np.empty((1, self._spec.width), np.float32)
        filled = self._fill(header, parameters, block, inputs, targets, np.zeros(1, np.int64))
        if filled.fault is not None:
            raise filled.fault
        self.take(simulation, header._replace(step=int(block.steps[0])), inputs[0], targets[0])

    def _take_run(self, header: Header, parameters: tuple[float, ...], block: Block, *, counted: bool) -> None:
        """Make each time step of a block a sample; counted: whether the statistics have them already."""
        sinks, buffer = self._sinks, self._sinks.buffer
        assert buffer is not None  # these are time steps to train on
        slots = buffer.reserve_many(len(block))
        inputs, targets = slots.inputs[:, 0], slots.targets[:, 0]
        filled = self._fill(header, parameters, block, inputs, targets, slots.rows)
        if filled.fault is not None:
            buffer.discard_many(slots)
            if filled.good:
                self._take_run(header, parameters, block.part(0, filled.good), counted=counted)
            raise filled.fault
        if not counted:
            sinks.moments(inputs[slots.rows], [[filled.moments[f.name]] for f in self._spec.fields])
        sinks.on_steps(header.simulation, block.steps, inputs, targets, slots.rows)
        slots.samples[:] = block.steps // self._samples.stride
        self._put(slots, header.simulation)

    def _put(self, slots: Reserved, simulation: int) -> None:
        """Commit samples; each is marked as arrived before it can be drawn, so that no checkpoint comes in between."""
        trained, received = self._sinks.trained, self._metrics.samples_received

        def note(samples: list[int]) -> None:
            trained.mark_many(simulation, samples)
            received.inc(len(samples))

        slots.simulation, slots.on_commit = simulation, note
        if not self._sinks.put(slots):
            raise Refused(Reason.STUDY_OVER, "the study is stopping and wants no more data")

    def _fill(
        self,
        header: Header,
        parameters: tuple[float, ...],
        block: Block,
        inputs: Floats,
        targets: Floats,
        rows: NDArray[np.int64],
    ) -> Filled:
        """Write a block's time steps into rows of arrays, and look at what was written.

        Args:
            header: of the block.
            parameters: of the simulation.
            block: the time steps.
            inputs: shape (m, n_inputs).
            targets: shape (m, width).
            rows: row of each time step, (n,).
        """
        inputs[rows, :-1] = parameters
        inputs[rows, -1] = block.times if self._samples.time == "physical" else block.steps
        filled = Filled({}, len(block), None)
        if (at := self.layout.unusable_time(block)) >= 0:
            filled = Filled({}, at, bad_time(int(block.steps[at]), float(block.times[at])))
        for field, values in zip(self.layout.fields, block.values, strict=True):
            moments, wrong = take(
                np.ascontiguousarray(values), targets, rows, field.column, field.components, field.reference
            )
            filled.moments[field.name] = moments
            if 0 <= wrong < filled.good * field.size:
                at, element = divmod(wrong, field.size)
                filled.good = at
                filled.fault = not_finite(
                    header.simulation, int(block.steps[at]), field.name, element, values[at, element]
                )
        return filled

    def _commit(self, simulation: StreamedSimulation, slot: Slot, header: Header, sample: int) -> None:
        """Make a slot a sample."""
        sinks = self._sinks
        slot.sample = sample
        if not 0 <= header.step < simulation.counted:
            window, stride = self._samples.window, self._samples.stride
            new = uncounted(sample, window, stride, lambda other: sinks.trained.has(header.simulation, other))
            sinks.statistics(slot.inputs[None, new], slot.targets[None, new])
        self._put(slot, header.simulation)
