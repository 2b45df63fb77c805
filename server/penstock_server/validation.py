"""Held-out simulations: streamed like the rest, kept apart in memory, and what the surrogate's error on them is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_server.schema import SampleSpec
from penstock_server.trainer import Trainer

_BLOCK_BYTES = 16 * 2**20
NORM_FLOOR = 1e-3
"""Of a field's root-mean-square norm over the held-out set: see `ValidationResult`."""


class FieldErrors(TypedDict):
    """One field's errors over the held-out samples; the figures mean what they mean in `ValidationResult`."""

    mse: float
    relative_l2: float
    relative_l2_p99: float
    relative_l2_max: float


@dataclass(frozen=True)
class ValidationResult:
    """Errors on held-out samples, in the raw units of the solver.

    mse: mean squared error over all elements of all fields, as in the SC 2023 paper.
    relative_l2: mean over samples and fields of ||prediction - true|| / ||true||, each norm over one field of one time step.
    relative_l2_p99, relative_l2_max: 99th percentile and maximum of the same ratios.
    fields: the same for each field alone. samples: how many held-out samples (window > 1: transitions).
    floored: how many ratios had a true norm below NORM_FLOOR x the field's root-mean-square norm (a fluid at rest, say) and were taken
    relative to that floor instead, so that one all but empty field does not decide the mean. seconds: what it took.
    """

    mse: float
    relative_l2: float
    relative_l2_p99: float
    relative_l2_max: float
    fields: dict[str, FieldErrors]
    samples: int
    floored: int
    seconds: float


class ValidationStore:
    """The held-out time steps, in memory that grows by blocks (no copy of what is there).

    Thread-safe: the ingest thread adds while the training thread evaluates what had come before.
    """

    def __init__(self, spec: SampleSpec) -> None:
        self.spec = spec
        self._lock = threading.Lock()
        self._block_rows = max(1, _BLOCK_BYTES // (4 * (spec.width + spec.n_inputs)))
        self._inputs: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._rows: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        """Time steps held."""
        return len(self._rows)

    def add(
        self,
        simulation: int,
        step: int,
        inputs: NDArray[np.floating[Any]] | Tensor,
        targets: NDArray[np.floating[Any]] | Tensor,
    ) -> bool:
        """Copy in one held-out time step: inputs (n_inputs,), targets (width,). False when it is there already."""
        with self._lock:
            if (simulation, step) in self._rows:
                return False
            row = len(self._rows)
            block, place = divmod(row, self._block_rows)
            if block == len(self._inputs):
                self._inputs.append(torch.empty(self._block_rows, self.spec.n_inputs))
                self._targets.append(torch.empty(self._block_rows, self.spec.width))
            self._inputs[block][place] = torch.as_tensor(inputs)
            self._targets[block][place] = torch.as_tensor(targets)
            self._rows[simulation, step] = row
            return True

    def simulations(self) -> dict[int, list[int]]:
        """The time steps held of each simulation, both ascending."""
        out: dict[int, list[int]] = {}
        for simulation, step in self._keys():
            out.setdefault(simulation, []).append(step)
        return out

    def time_step(self, simulation: int, step: int) -> tuple[Tensor, Tensor]:
        """Its inputs (n_inputs,) and targets (width,); views. Raises KeyError when it is not held."""
        block, place = divmod(self._rows[simulation, step], self._block_rows)
        return self._inputs[block][place], self._targets[block][place]

    def predictable(self) -> list[tuple[int, int]]:
        """(simulation, step) of what can be predicted: every time step or, with window > 1, each whose predecessor is held."""
        keys = self._keys()
        if self.spec.window == 1:
            return keys
        held = set(keys)
        return [(simulation, step) for simulation, step in keys if (simulation, step - 1) in held]

    def predict(self, trainer: Trainer, keys: list[tuple[int, int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """(prediction, true) rows (n, width) of these time steps, chunk by chunk, on the trainer's device.

        With window > 1 each is predicted in a single step from the true time step before it.
        """
        for start in range(0, len(keys), trainer.chunk_rows):
            chunk = keys[start : start + trainer.chunk_rows]
            rows = [self.time_step(*key) for key in chunk]
            inputs = torch.stack([i for i, _ in rows])
            true = torch.stack([t for _, t in rows]).to(trainer.device)
            state = None
            if self.spec.window > 1:
                state = torch.stack([self.time_step(simulation, step - 1)[1] for simulation, step in chunk])
            yield torch.cat(list(trainer.predict_chunks(inputs, state))), true

    def evaluate(self, trainer: Trainer) -> ValidationResult:
        """The surrogate's errors on all that is held now. Raises ValueError when nothing can be predicted yet."""
        start = time.perf_counter()
        keys = self.predictable()
        if not keys:
            need = "a time step" if self.spec.window == 1 else "two consecutive time steps"
            raise ValueError(f"no validation without {need} of a held-out simulation: {len(self)} held")
        columns = self.spec.columns()
        errors, norms = [], []  # (n, fields) each
        for prediction, true in self.predict(trainer, keys):
            difference = prediction - true
            errors.append(torch.stack([_norm(difference[:, c]) for c in columns.values()], dim=1).cpu())
            norms.append(torch.stack([_norm(true[:, c]) for c in columns.values()], dim=1).cpu())
        return _summary(self.spec, torch.cat(errors).numpy(), torch.cat(norms).numpy(), start)

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint; the blocks are the live ones."""
        with self._lock:
            return {
                "keys": np.array(list(self._rows), dtype=np.int64).reshape(-1, 2),
                "inputs": list(self._inputs),
                "targets": list(self._targets),
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace what is held. Raises ValueError when the state belongs to another spec."""
        for got, want in ((state["inputs"], self.spec.n_inputs), (state["targets"], self.spec.width)):
            for block in got:
                if tuple(block.shape) != (self._block_rows, want):
                    raise ValueError(
                        f"held-out block of shape {tuple(block.shape)}: expected {(self._block_rows, want)} for this study"
                    )
        with self._lock:
            self._inputs, self._targets = list(state["inputs"]), list(state["targets"])
            self._rows = {(int(simulation), int(step)): row for row, (simulation, step) in enumerate(state["keys"])}

    def _keys(self) -> list[tuple[int, int]]:
        with self._lock:
            return sorted(self._rows)


def _norm(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms


def _summary(spec: SampleSpec, errors: NDArray[Any], norms: NDArray[Any], start: float) -> ValidationResult:
    floor = NORM_FLOOR * np.sqrt(np.mean(norms**2, axis=0))
    # A field that is zero in every sample: its error is measured against 1 in its own unit.
    floor = np.where(floor > 0, floor, 1.0)
    ratios = errors / np.maximum(norms, floor)
    squares = np.sum(errors**2, axis=0)
    fields: dict[str, FieldErrors] = {}
    for i, field in enumerate(spec.fields):
        mean, p99, largest = _spread(ratios[:, i])
        fields[field.name] = {
            "mse": float(squares[i]) / (len(errors) * field.size),
            "relative_l2": mean,
            "relative_l2_p99": p99,
            "relative_l2_max": largest,
        }
    return ValidationResult(
        float(squares.sum()) / (len(errors) * spec.width),
        *_spread(ratios),
        fields=fields,
        samples=len(errors),
        floored=int(np.count_nonzero(norms < floor)),
        seconds=time.perf_counter() - start,
    )


def _spread(ratios: NDArray[Any]) -> tuple[float, float, float]:
    return float(ratios.mean()), float(np.quantile(ratios, 0.99)), float(ratios.max())
