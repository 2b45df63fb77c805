"""Which (simulation, sample) has arrived. One bit each: what makes at-least-once delivery exactly-once accounting.

100,000 simulations of 1,000 time steps take about 40 MB. Not locked: it belongs to the thread that takes pieces in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.study import MAX_STEPS


class Ledger:
    """Marks arrivals, of samples numbered 0, 1, 2, ... within each simulation.

    max_steps: samples a simulation may have. An index beyond it is refused before memory is taken for it, so that a
    wrong index costs one message and not the server (the rows of a simulation end at max_steps / 8 bytes: 2 MiB by
    default).
    """

    def __init__(self, max_steps: int = MAX_STEPS) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps = {max_steps}: expected at least 1")
        self.max_steps = max_steps
        self._rows: dict[int, bytearray] = {}
        self._total = 0

    def mark(self, simulation: int, index: int) -> bool:
        """Note an arrival. True when it is new, False when it had arrived before.

        ValueError for a negative simulation, or an index outside 0 <= index < max_steps.
        """
        self._check(simulation, index)
        row = self._rows.setdefault(simulation, bytearray())
        byte, bit = index >> 3, 1 << (index & 7)
        if byte >= len(row):
            # Doubling: n arrivals in order cost O(n), and a row is at most twice what it needs.
            room = min(max(byte + 1, 2 * len(row)), (self.max_steps + 7) // 8)
            row.extend(bytes(room - len(row)))
        elif row[byte] & bit:
            return False
        row[byte] |= bit
        self._total += 1
        return True

    def has(self, simulation: int, index: int) -> bool:
        """Whether it has arrived. ValueError as in `mark`."""
        self._check(simulation, index)
        row = self._rows.get(simulation, b"")
        byte = index >> 3
        return byte < len(row) and bool(row[byte] & 1 << (index & 7))

    def count(self, simulation: int) -> int:
        """Samples of a simulation that have arrived."""
        return int.from_bytes(self._rows.get(simulation, b"")).bit_count()

    def total(self) -> int:
        """Samples of all simulations that have arrived."""
        return self._total

    def simulations(self) -> list[int]:
        """The simulations of which anything has arrived, in rising order."""
        return sorted(self._rows)

    def missing(self, simulation: int, steps: int) -> NDArray[np.int64]:
        """The indices below `steps` that have not arrived, in rising order. ValueError unless 0 <= steps <= max_steps."""
        if not 0 <= steps <= self.max_steps:
            raise ValueError(f"{steps} steps of simulation {simulation}: expected 0 to {self.max_steps}")
        row = np.frombuffer(self._rows.get(simulation, b""), dtype=np.uint8)
        arrived = np.zeros(steps, dtype=np.uint8)
        bits = np.unpackbits(row, bitorder="little")[:steps]
        arrived[: len(bits)] = bits
        return np.flatnonzero(arrived == 0)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """simulations (n,) int64; lengths (n,) int64, bytes of each one's bits; bits (sum of lengths,) uint8, lowest bit first."""
        simulations = self.simulations()
        rows = [bytes(self._rows[simulation]).rstrip(b"\0") for simulation in simulations]
        return {
            "simulations": np.array(simulations, dtype=np.int64),
            "lengths": np.array([len(row) for row in rows], dtype=np.int64),
            "bits": np.frombuffer(b"".join(rows), dtype=np.uint8).copy(),
        }

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """Replace everything by what `state_dict` returned. ValueError, and nothing changed, where the arrays do not agree."""
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

    def _check(self, simulation: int, index: int) -> None:
        if simulation < 0:
            raise ValueError(f"simulation {simulation}: expected 0 or more")
        if not 0 <= index < self.max_steps:
            raise ValueError(f"sample {index} of simulation {simulation}: expected 0 to {self.max_steps - 1}")
