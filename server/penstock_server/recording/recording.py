"""Recordings: the time steps of a study's simulations in one HDF5 file (layout: docs/recording.md).

`penstock record` writes one; a study with [training] source trains on it, as a baseline for online training.
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import PenstockError
from penstock_server.study import FieldSpec, SampleSpec

FORMAT = 1
_CHUNK_BYTES = 64 * 1024  # a disk reads this in about the time of one seek
_PENDING_BYTES = 64 * 2**20  # of time steps in memory whose chunk is not complete

Floats = NDArray[np.float32]


class RecordingError(PenstockError):
    """The file is no recording, or cannot be used for this study."""


@dataclass(frozen=True)
class Recording:
    """A recording without its values, which `RecordingReader` reads.

    Attributes:
        path: the HDF5 file.
        study: name of the recorded study.
        seed: its seed.
        time: "step" or "physical", the meaning of the last input of a time step.
        parameters: names of the parameters that models see.
        seeds: names of the parameters that only solvers receive.
        fields: the recorded fields.
        points: parameters of each simulation, (simulations, parameters) float64.
        held_out: whether a simulation is held out, (simulations,) bool.
        finished: whether it finished, (simulations,) bool; otherwise it failed.
        steps: number of time steps from 0 on without a gap, (simulations,) int64.
    """

    path: Path
    study: str
    seed: int
    time: str
    parameters: tuple[str, ...]
    seeds: tuple[str, ...]
    fields: tuple[FieldSpec, ...]
    points: NDArray[np.float64]
    held_out: NDArray[np.bool_]
    finished: NDArray[np.bool_]
    steps: NDArray[np.int64]

    @classmethod
    def open(cls, path: str | Path) -> Recording:
        """Read a recording without its values.

        Args:
            path: the HDF5 file.

        Raises:
            RecordingError: the file is missing, damaged or no recording.
        """
        path = Path(path)
        if not path.is_file():
            raise RecordingError(f"{path}: no such file; write it with `penstock record STUDY --out {path}`")
        try:
            with h5py.File(path, "r") as file:
                about = file.attrs
                if about["format"] != FORMAT:
                    raise RecordingError(f"{path} has format {about['format']}, expected {FORMAT}: record it again")
                fields = json.loads(about["fields"])
                recording = cls(
                    path,
                    str(about["study"]),
                    int(about["seed"]),
                    str(about["time"]),
                    tuple(json.loads(about["parameters"])),
                    tuple(json.loads(about["seeds"])),
                    tuple(
                        FieldSpec(f["name"], f["components"], tuple(f["shape"]), f.get("reference", 0.0))
                        for f in fields
                    ),
                    file["parameters"][...],
                    file["held_out"][...],
                    file["finished"][...],
                    file["steps"][...],
                )
                shape = (len(recording.steps), recording.longest(), recording.spec().width)
                if file["values"].shape != shape or file["time"].shape != shape[:2]:
                    raise RecordingError(
                        f"{path}: values {file['values'].shape} and time {file['time'].shape}, expected {shape} and "
                        f"{shape[:2]}: the file is damaged; record it again"
                    )
                return recording
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise RecordingError(
                f"{path} is no recording ({type(error).__name__}: {error}); write one with `penstock record`"
            ) from error

    def spec(self, window: int = 1, bundle: int = 1) -> SampleSpec:
        """Return the layout of samples made from the recording.

        Args:
            window: time steps of a sample.
            bundle: time steps that the model takes and gives at once.
        """
        return SampleSpec(self.parameters, self.fields, window, bundle)

    def longest(self) -> int:
        """Return the number of time steps of the longest simulation."""
        return int(self.steps.max(initial=0))

    @property
    def bytes_per_step(self) -> int:
        """Size of all fields of one time step, in bytes."""
        return 4 * self.spec().width

    def training(self, number: int | None = None) -> NDArray[np.int64]:
        """Return the ids of the simulations to train on, or of the first `number` of them."""
        return np.flatnonzero(~self.held_out)[:number]

    def validation(self, number: int | None = None) -> NDArray[np.int64]:
        """Return the ids of the held-out simulations, or of the first `number` of them."""
        return np.flatnonzero(self.held_out)[:number]


class RecordingReader:
    """Reads the time steps of a recording. Each process that it is sent to opens the file itself.

    Args:
        recording: the recording.
        time: meaning of the last input of a time step, "step" (any recording) or "physical".
    """

    def __init__(self, recording: Recording, time: str) -> None:
        self.recording, self._time = recording, time
        self._file: h5py.File | None = None

    def read(self, simulation: int, first: int, number: int) -> tuple[Floats, Floats]:
        """Read consecutive time steps.

        Args:
            simulation: id of the simulation.
            first: number of the first time step.
            number: number of time steps.

        Returns:
            Inputs (number, n_inputs) and targets (number, width), float32.
        """
        if self._file is None:
            # Without a chunk cache HDF5 reads only the requested part of a chunk; the operating system caches the file.
            self._file = h5py.File(self.recording.path, "r", rdcc_nbytes=0)
            self._values, self._times = self._file["values"], self._file["time"]
        inputs = np.empty((number, len(self.recording.parameters) + 1), np.float32)
        inputs[:, :-1] = self.recording.points[simulation]
        if self._time == "physical":
            inputs[:, -1] = self._times[simulation, first : first + number]
        else:
            inputs[:, -1] = np.arange(first, first + number)
        return inputs, self._values[simulation, first : first + number]

    def static_fields(self) -> dict[str, NDArray[np.float64]]:
        """Return name -> mesh geometry (points, components) that the solver sent."""
        with h5py.File(self.recording.path, "r") as file:
            return {name: values[...] for name, values in file.get("mesh", {}).items()}

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {"recording": self.recording, "_time": self._time, "_file": None}


@dataclass
class _Run:
    """Consecutive time steps of one simulation that have not been written yet."""

    first: int
    rows: list[Floats]

    @property
    def end(self) -> int:
        return self.first + len(self.rows)


class RecordingWriter:
    """Writes a recording to `path`.writing, which is renamed to `path` once it is complete. Not thread-safe.

    Time steps may arrive in any order, from any number of simulations at once. They are kept in memory until a chunk of
    their simulation is complete.

    Args:
        path: file to write.
        spec: layout of a time step.
        points: parameters that models see, (simulations, parameters).
        held_out: whether a simulation is held out, (simulations,) bool.
        about: attributes `study`, `seed` and `time` of the file.
        seeds: names of the parameters that only solvers receive.

    Attributes:
        path: file to write.
    """

    def __init__(
        self,
        path: Path,
        spec: SampleSpec,
        *,
        points: NDArray[np.float64],
        held_out: NDArray[np.bool_],
        about: Mapping[str, str | int],
        seeds: Sequence[str] = (),
    ) -> None:
        self.path = path
        self._writing = path.with_name(path.name + ".writing")
        self._simulations, self._width = len(points), spec.width
        self._most = max(1, _CHUNK_BYTES // (4 * spec.width))  # time steps in a chunk
        self._pending = 0
        self._runs: dict[int, _Run] = {}
        self._steps = np.zeros(len(points), np.int64)
        self._ahead: defaultdict[int, dict[int, float]] = defaultdict(dict)  # step to time, of what arrived after a gap
        self._times: defaultdict[int, array[float]] = defaultdict(lambda: array("f"))  # of the steps before it
        self._values: h5py.Dataset | None = None
        self._file = h5py.File(self._writing, "w")
        self._file.attrs.update({"format": FORMAT, **about})
        fields = [vars(f) for f in spec.fields]
        for name, content in (("fields", fields), ("parameters", spec.parameters), ("seeds", list(seeds))):
            self._file.attrs[name] = json.dumps(content)
        self._file["parameters"] = points
        self._file["held_out"] = held_out

    @property
    def time_steps(self) -> int:
        """Number of time steps of all simulations, each counted up to its first gap."""
        return int(self._steps.sum())

    def gaps(self) -> dict[int, int]:
        """Return, for each simulation with time steps behind a gap, the number of the first one that is missing."""
        return {i: int(self._steps[i]) for i, ahead in sorted(self._ahead.items()) if ahead}

    def add(self, simulation: int, step: int, inputs: Floats, targets: Floats) -> bool:
        """Add one time step.

        Args:
            simulation: id of the simulation.
            step: number of the time step.
            inputs: (n_inputs,), of which only the last, the time, is kept.
            targets: (width,), not copied.

        Returns:
            False if the time step has been added before.
        """
        ahead = self._ahead[simulation]
        if step < self._steps[simulation] or step in ahead:
            return False
        ahead[step] = float(inputs[-1])
        while (following := int(self._steps[simulation])) in ahead:
            self._times[simulation].append(ahead.pop(following))
            self._steps[simulation] += 1
        run = self._runs.get(simulation)
        if run is not None and run.end != step:
            self._flush(simulation)
            run = None
        if run is None:
            run = self._runs[simulation] = _Run(step, [])
        run.rows.append(targets)
        self._pending += targets.nbytes
        if self._values is None and run.end >= self._most:
            self._values = self._make_values(self._most)
        if self._values is not None and run.end % self._values.chunks[1] == 0:
            self._flush(simulation)
        if self._pending > _PENDING_BYTES:
            for waiting in list(self._runs):
                self._flush(waiting)
        return True

    def add_static(self, name: str, values: NDArray[np.float64]) -> None:
        """Add mesh geometry.

        Args:
            name: name of the static field.
            values: (points, components).
        """
        self._file[f"mesh/{name}"] = values

    def finish(self, finished: NDArray[np.bool_]) -> None:
        """Complete the file and rename it.

        Args:
            finished: whether each simulation has finished, (simulations,).
        """
        for simulation in list(self._runs):
            self._flush(simulation)
        if self._values is None:
            self._values = self._make_values(1)
        longest = int(self._steps.max(initial=0))
        self._values.resize(longest, axis=1)  # cuts off time steps behind a gap that was never filled
        times = np.full((self._simulations, longest), np.nan, np.float32)
        for simulation, by_step in self._times.items():
            times[simulation, : len(by_step)] = by_step
        self._file["time"] = times
        self._file["steps"] = self._steps
        self._file["finished"] = finished
        self._file.close()
        self._writing.replace(self.path)

    def discard(self) -> None:
        """Remove the incomplete file. Does nothing after `finish`."""
        with suppress(OSError, RuntimeError):  # a full disk, which `finish` or `add` has reported
            self._file.close()
        self._writing.unlink(missing_ok=True)

    def _flush(self, simulation: int) -> None:
        run = self._runs.pop(simulation)
        if self._values is None:
            longest = max([run.end, *(other.end for other in self._runs.values())])
            self._values = self._make_values(longest)
        if run.end > self._values.shape[1]:
            self._values.resize(run.end, axis=1)
        self._values[simulation, run.first : run.end] = np.stack(run.rows)
        self._pending -= sum(row.nbytes for row in run.rows)

    def _make_values(self, longest: int) -> h5py.Dataset:
        """Create the dataset of all values; `longest`: time steps of the longest simulation, the most in a chunk."""
        chunks = -(-longest // self._most)
        rows = max(1, -(-longest // max(1, chunks)))
        return self._file.create_dataset(
            "values",
            (self._simulations, 0, self._width),
            np.float32,
            maxshape=(self._simulations, None, self._width),
            chunks=(1, rows, self._width),
        )
