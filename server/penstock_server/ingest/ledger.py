"""Which samples of each simulation have arrived, one bit each: pieces may come twice, a sample counts once.

100,000 simulations of 1,000 time steps take about 40 MB. The thread that takes pieces in writes it; others may read it
at any time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.study import MAX_STEPS


class Ledger:
    """Marks arrivals of samples, numbered 0, 1, 2, ... within each simulation.

    Args:
        max_steps: samples that a simulation may have. A larger index is refused before memory is taken for it, so that
            a wrong index costs one message and not the server: a simulation takes at most max_steps / 8 bytes.
    """

    def __init__(self, max_steps: int = MAX_STEPS) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps = {max_steps}: expected at least 1")
        self.max_steps = max_steps
        self._rows: dict[int, bytearray] = {}
        self._total = 0

    def mark(self, simulation: int, index: int) -> bool:
        """Note an arrival; return False when the sample had arrived before.

        Args:
            simulation: its id.
            index: of the sample within the simulation.

        Raises:
            ValueError: the simulation is negative, or not 0 <= index < max_steps.
        """
        self._check(simulation, index)
        row = self._rows.setdefault(simulation, bytearray())
        byte, bit = index >> 3, 1 << (index & 7)
        self._make_room(row, byte)
        if row[byte] & bit:
            return False
        row[byte] |= bit
        self._total += 1
        return True

    def mark_many(self, simulation: int, indices: list[int]) -> None:
        """Note arrivals; as `mark` for each.

        Args:
            simulation: its id.
            indices: of the samples within the simulation.

        Raises:
            ValueError: as `mark`; nothing has been noted.
        """
        if not indices:
            return
        last = max(indices)
        self._check(simulation, min(indices))
        self._check(simulation, last)
        row = self._rows.setdefault(simulation, bytearray())
        self._make_room(row, last >> 3)
        new = 0
        for index in indices:
            byte, bit = index >> 3, 1 << (index & 7)
            if not row[byte] & bit:
                row[byte] |= bit
                new += 1
        self._total += new

    def has(self, simulation: int, index: int) -> bool:
        """Return whether a sample has arrived.

        Args:
            simulation: its id.
            index: of the sample within the simulation.

        Raises:
            ValueError: as `mark`.
        """
        self._check(simulation, index)
        row = self._rows.get(simulation, b"")
        byte = index >> 3
        return byte < len(row) and bool(row[byte] & 1 << (index & 7))

    def which(self, simulation: int, indices: list[int]) -> list[bool]:
        """Return for each sample whether it has arrived; as `has`.

        Args:
            simulation: its id.
            indices: of the samples within the simulation.

        Raises:
            ValueError: as `mark`.
        """
        if not indices:
            return []
        self._check(simulation, min(indices))
        self._check(simulation, max(indices))
        row = self._rows.get(simulation, b"")
        known = 8 * len(row)
        return [index < known and bool(row[index >> 3] & 1 << (index & 7)) for index in indices]

    def count(self, simulation: int) -> int:
        """Return how many samples of a simulation have arrived."""
        return int.from_bytes(self._rows.get(simulation, b"")).bit_count()

    def total(self) -> int:
        """Return how many samples of all simulations have arrived."""
        return self._total

    def simulations(self) -> list[int]:
        """Return the simulations of which any sample has arrived, in rising order."""
        return sorted(self._rows)

    def missing(self, simulation: int, steps: int) -> NDArray[np.int64]:
        """Return the indices below `steps` of samples that have not arrived, in rising order.

        Args:
            simulation: its id.
            steps: number of samples.

        Raises:
            ValueError: not 0 <= steps <= max_steps.
        """
        if not 0 <= steps <= self.max_steps:
            raise ValueError(f"{steps} steps of simulation {simulation}: expected 0 to {self.max_steps}")
        row = np.frombuffer(self._rows.get(simulation, b""), dtype=np.uint8)
        arrived = np.zeros(steps, dtype=np.uint8)
        bits = np.unpackbits(row, bitorder="little")[:steps]
        arrived[: len(bits)] = bits
        return np.flatnonzero(arrived == 0)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return everything, for a checkpoint.

        Returns:
            "simulations" of shape (n,), int64; "lengths" of shape (n,), int64: number of bytes of each one's bits;
            "bits" of shape (sum of lengths,), uint8, lowest bit first.
        """
        simulations = self.simulations()
        rows = [bytes(self._rows[simulation]).rstrip(b"\0") for simulation in simulations]
        return {
            "simulations": np.array(simulations, dtype=np.int64),
            "lengths": np.array([len(row) for row in rows], dtype=np.int64),
            "bits": np.frombuffer(b"".join(rows), dtype=np.uint8).copy(),
        }

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """Replace everything by what `state_dict` returned.

        Args:
            state: the three arrays.

        Raises:
            ValueError: the arrays do not agree; then nothing has changed.
        """
        simulations, lengths, bits = (state[name] for name in ("simulations", "lengths", "bits"))
        if len(simulations) != len(lengths) or (lengths < 0).any() or lengths.sum() != len(bits):
            raise ValueError(
                f"the ledger is damaged: {len(simulations)} simulations, {len(lengths)} lengths that add up to "
                f"{lengths.sum()}, and {len(bits)} bytes of bits"
            )
        data = bits.astype(np.uint8).tobytes()
        ends = np.cumsum(lengths).tolist()
        rows = {
            simulation: bytearray(data[end - length : end])
            for simulation, length, end in zip(simulations.tolist(), lengths.tolist(), ends, strict=True)
        }
        for simulation, row in rows.items():
            self._check(simulation, max(0, int.from_bytes(row, "little").bit_length() - 1))
        self._rows = rows
        self._total = int.from_bytes(data).bit_count()

    def _make_room(self, row: bytearray, byte: int) -> None:
        if byte >= len(row):
            # Doubling: n arrivals in order cost O(n), and a row is at most twice what it needs.
            room = min(max(byte + 1, 2 * len(row)), (self.max_steps + 7) // 8)
            row.extend(bytes(room - len(row)))

    def _check(self, simulation: int, index: int) -> None:
        if simulation < 0:
            raise ValueError(f"simulation {simulation}: expected 0 or more")
        if not 0 <= index < self.max_steps:
            raise ValueError(f"sample {index} of simulation {simulation}: expected 0 to {self.max_steps - 1}")
