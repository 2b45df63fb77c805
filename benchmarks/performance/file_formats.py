"""The detour through files: how producers write time steps, and where a reader finds them.

npy and npz: one file for each time step. HDF5: one file for each simulation of STEPS time steps, written step by step and
renamed when it is whole. A file appears under its name when it is complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 64  # time steps of one simulation, and of one HDF5 file
FORMATS = ("npy", "npz", "hdf5")


def path_of(form: str, folder: Path, producer: int, step: int) -> Path:
    """Return the file that holds a time step."""
    name = f"{producer}-{step // STEPS}.hdf5" if form == "hdf5" else f"{producer}-{step}.{form}"
    return folder / name


class SimulationFiles:
    """Writes the time steps of one producer.

    Args:
        form: one of FORMATS.
        folder: where to.
        producer: number of the producer.
    """

    def __init__(self, form: str, folder: Path, producer: int) -> None:
        self._form, self._folder, self._producer = form, folder, producer
        self._open: Any = None
        self._at = Path()

    def write(self, step: int, values: NDArray[np.float32]) -> None:
        """Write one time step."""
        final = path_of(self._form, self._folder, self._producer, step)
        partial = final.with_suffix(".part")
        if self._form == "hdf5":
            import h5py

            if step % STEPS == 0:
                self._open, self._at = h5py.File(partial, "w"), final
                self._open.create_dataset("T", (STEPS, values.size), np.float32, chunks=(1, values.size))
            self._open["T"][step % STEPS] = values
            if step % STEPS == STEPS - 1:
                self.close()
            return
        with partial.open("wb") as file:
            if self._form == "npy":
                np.save(file, values)
            else:
                np.savez(file, T=values)
        partial.rename(final)

    def close(self) -> None:
        """Complete the file that is open."""
        if self._open is not None:
            self._open.close()
            self._open = None
            self._at.with_suffix(".part").rename(self._at)

    def __enter__(self) -> SimulationFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(form: str, path: Path, step: int) -> NDArray[np.float32]:
    """Return one time step of a file."""
    if form == "hdf5":
        import h5py

        with h5py.File(path) as file:
            found: NDArray[np.float32] = file["T"][step % STEPS]
            return found
    loaded = np.load(path)
    return loaded if form == "npy" else loaded["T"]  # type: ignore[no-any-return]
