"""Held-out simulations: streamed like the rest, kept apart in memory, and what the surrogate's error on them is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_server.errors import Errors, Norms
from penstock_server.rank_group import ALONE, RankGroup
from penstock_server.rollout import RolloutResult, roll_out
from penstock_server.schema import SampleSpec
from penstock_server.trainer import Trainer

_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ValidationResult:
    """Errors on held-out samples.

    errors: of each held-out time step; with window > 1 predicted in one go from the true time steps before it.
    rollout: with window > 1, of whole simulations predicted from their first time steps. seconds: what it took.
    """

    errors: Errors
    rollout: RolloutResult | None
    seconds: float

    @property
    def mse(self) -> float:
        return self.errors.mse

    @property
    def relative_l2(self) -> float:
        return self.errors.relative_l2

    def figures(self) -> dict[str, Any]:
        """The errors as plain data for report.json, metrics.jsonl and the model card."""
        rollout = None if self.rollout is None else self.rollout.figures()
        return {**asdict(self.errors), "rollout": rollout}


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

    def unbroken(self) -> dict[int, int]:
        """How many time steps of each simulation are held from its first on without a gap."""
        out: dict[int, int] = {}
        for simulation, step in self._keys():
            if step == out.setdefault(simulation, 0):
                out[simulation] += 1
        return out

    def predictable(self) -> list[tuple[int, int]]:
        """(simulation, step) of what can be predicted: every time step or, with window > 1, the first of each bundle that is held with
        the bundle before it; bundles begin at multiples of their length, so that no time step is predicted twice."""
        keys = self._keys()
        if self.spec.window == 1:
            return keys
        held, bundle = set(keys), self.spec.bundle
        return [
            (simulation, step)
            for simulation, step in keys
            if step % bundle == 0 and all((simulation, step + k) in held for k in range(-bundle, bundle))
        ]

    def predict(self, trainer: Trainer, keys: list[tuple[int, int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """(prediction, true) rows (n, width) of these time steps, chunk by chunk, on the trainer's device.

        With window > 1 a key stands for the bundle that begins there (`bundle` rows), predicted from the true bundle before it.
        """
        bundle = range(self.spec.bundle)
        for start in range(0, len(keys), trainer.chunk_rows):
            chunk = keys[start : start + trainer.chunk_rows]
            inputs = torch.stack([self.time_step(*key)[0] for key in chunk])
            true = torch.stack([self.time_step(simulation, step + k)[1] for simulation, step in chunk for k in bundle])
            state = None
            if self.spec.window > 1:
                before = [
                    self.time_step(simulation, step - len(bundle) + k)[1] for simulation, step in chunk for k in bundle
                ]
                state = torch.stack(before).reshape(len(chunk), self.spec.state_width)
            prediction = torch.cat(list(trainer.predict_chunks(inputs, state)))
            yield prediction.reshape(true.shape), true.to(trainer.device)

    def evaluate(self, trainer: Trainer, group: RankGroup = ALONE) -> ValidationResult:
        """The surrogate's errors on all that is held now, by this rank and the others of its group. Each rank predicts what it holds, and
        all get the same result. Raises ValueError when nothing can be predicted yet."""
        start = time.perf_counter()
        own = [Norms.of(self.spec, *rows) for rows in self.predict(trainer, self.predictable())]
        held = Norms.join([Norms.none(len(self.spec.fields)), *own])
        everything = Norms.join([Norms.from_rows(rows) for rows in group.gather(held.rows())])
        if not len(everything.errors):
            need = "a time step" if self.spec.window == 1 else f"{2 * self.spec.bundle} consecutive time steps"
            raise ValueError(f"no validation without {need} of a held-out simulation: {len(self)} held")
        rollout = roll_out(self, trainer, group) if self.spec.window > 1 else None
        return ValidationResult(everything.summary(self.spec), rollout, time.perf_counter() - start)

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
