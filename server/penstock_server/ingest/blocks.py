"""Blocks: runs of whole time steps in one message, which are dealt with by array operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_client.wire import NUMPY_DTYPES, Header
from penstock_server.ingest.pieces import LARGEST
from penstock_server.study import MAX_STEPS, SamplesSection, Schema

Array = NDArray[np.generic]


@dataclass(frozen=True)
class BlockField:
    """One field of a block's rows.

    Attributes:
        name: of the field.
        dtype: of its elements.
        size: number of its elements.
        begin: its first byte in a row.
        column: its first column in a sample's targets.
        components: elements at each of its points.
        reference: subtracted from its values; 0 for none.
    """

    name: str
    dtype: np.dtype[np.generic]
    size: int
    begin: int
    column: int
    components: int
    reference: float


@dataclass(frozen=True)
class Block:
    """A run of whole time steps.

    Attributes:
        steps: number of each, (n,), rising.
        times: physical time of each, (n,).
        values: by field, the elements of each time step, (n, size), in the dtype sent; views of the message.
    """

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    values: list[Array]

    def __len__(self) -> int:
        """Return the number of time steps."""
        return len(self.times)

    def part(self, begin: int, end: int) -> Block:
        """Return the time steps from position `begin` up to `end`."""
        return Block(self.steps[begin:end], self.times[begin:end], [v[begin:end] for v in self.values])

    def pick(self, positions: NDArray[np.int64]) -> Block:
        """Return the time steps at some positions."""
        return Block(self.steps[positions], self.times[positions], [v[positions] for v in self.values])


class BlockLayout:
    """Reads blocks of a study's fields.

    Args:
        schema: the fields.
        samples: the study's [samples].

    Attributes:
        fields: in the order of a row.
        row_bytes: length of a row.
    """

    def __init__(self, schema: Schema, samples: SamplesSection) -> None:
        columns = schema.spec.columns()
        self.fields: list[BlockField] = []
        self.row_bytes = 0
        for spec in sorted(schema.spec.fields, key=lambda f: schema.ids[f.name]):
            number, column = schema.ids[spec.name], columns[spec.name]
            dtype, size = NUMPY_DTYPES[schema.dtypes[number]], column.stop - column.start
            self.fields.append(
                BlockField(spec.name, dtype, size, self.row_bytes, column.start, spec.components, spec.reference)
            )
            self.row_bytes += size * dtype.itemsize
        self._physical = samples.time == "physical"

    def read(self, header: Header, payload: bytes | memoryview) -> Block:
        """Check a block's form.

        Args:
            header: of the block.
            payload: its rows, and the times of all time steps but the first.

        Raises:
            Refused: it does not fit the fields.
        """
        number, distance = header.count, header.offset
        if number < 1 or len(payload) != number * self.row_bytes + 8 * (number - 1):
            raise Refused(
                Reason.SIZE,
                f"block of {number} time steps in {len(payload)} bytes: a time step has {self.row_bytes} bytes, and each "
                "after the first 8 for its time",
            )
        if distance < 1 or not 0 <= header.step <= MAX_STEPS - 1 - (number - 1) * distance:
            raise Refused(
                Reason.MALFORMED,
                f"block of {number} time steps from {header.step} at a distance of {distance}: expected a distance of at "
                f"least 1, and time steps 0 to {MAX_STEPS - 1}",
            )
        rows_end = number * self.row_bytes
        times = np.empty(number)
        times[0] = header.time
        times[1:] = np.frombuffer(payload, "<f8", number - 1, rows_end)
        values: list[Array] = [
            np.ndarray((number, f.size), f.dtype, payload, f.begin, (self.row_bytes, f.dtype.itemsize))
            for f in self.fields
        ]
        steps = np.arange(header.step, header.step + number * distance, distance, dtype=np.int64)
        return Block(steps, times, values)

    def unusable_time(self, block: Block) -> int:
        """Return the position of the first time step whose time cannot be an input; -1: none."""
        if not self._physical:
            return -1
        wrong = np.flatnonzero(~(np.abs(block.times) <= LARGEST))
        return int(wrong[0]) if wrong.size else -1
