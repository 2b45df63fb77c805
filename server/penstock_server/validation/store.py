"""The time steps of held-out simulations: streamed like all others, kept in memory, never trained on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_server.study import SampleSpec
from penstock_server.training import Trainer
from penstock_server.validation.norms import truth_columns, truth_norms

_BLOCK_BYTES = 16 * 2**20


class ValidationStore:
    """The held-out time steps, in memory that grows by blocks without copying.

    Thread-safe: the ingest thread adds time steps while the training thread evaluates earlier ones.

    Args:
        spec: layout of a sample.
    """

    def __init__(self, spec: SampleSpec) -> None:
        self.spec = spec
        self._lock = threading.Lock()
        self._block_rows = max(1, _BLOCK_BYTES // (4 * (spec.width + spec.n_inputs)))
        self._inputs: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._norms: list[NDArray[np.float64]] = []  # of the targets; each evaluation needs them
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
        """Add a copy of one time step.

        Args:
            simulation: id of the simulation.
            step: number of the time step.
            inputs: (n_inputs,).
            targets: (width,).

        Returns:
            False if the time step is held already.
        """
        values = torch.as_tensor(targets).to(torch.float32)
        norms = truth_norms(self.spec, values[None])[0]  # before the lock is taken, which training waits for
        with self._lock:
            if (simulation, step) in self._rows:
                return False
            row = len(self._rows)
            block, place = divmod(row, self._block_rows)
            if block == len(self._inputs):
                self._inputs.append(torch.empty(self._block_rows, self.spec.n_inputs))
                self._targets.append(torch.empty(self._block_rows, self.spec.width))
                self._norms.append(np.empty((self._block_rows, truth_columns(self.spec))))
            self._inputs[block][place] = torch.as_tensor(inputs)
            self._targets[block][place] = values
            self._norms[block][place] = norms
            self._rows[simulation, step] = row
            return True

    def simulations(self) -> dict[int, list[int]]:
        """Return simulation -> numbers of the time steps held, both ascending."""
        out: dict[int, list[int]] = {}
        for simulation, step in self._keys():
            out.setdefault(simulation, []).append(step)
        return out

    def time_step(self, simulation: int, step: int) -> tuple[Tensor, Tensor]:
        """Return one time step, without a copy.

        Args:
            simulation: id of the simulation.
            step: number of the time step.

        Returns:
            Inputs (n_inputs,) and targets (width,).

        Raises:
            KeyError: the time step is not held.
        """
        block, place = divmod(self._rows[simulation, step], self._block_rows)
        return self._inputs[block][place], self._targets[block][place]

    def truth_norms(self, keys: list[tuple[int, int]]) -> NDArray[np.float64]:
        """Return the norms of true time steps, computed when they were added.

        Args:
            keys: (simulation, step) of time steps that are held.

        Returns:
            As `norms.truth_norms`, (len(keys), truth_columns).
        """
        places = [divmod(self._rows[key], self._block_rows) for key in keys]
        none = np.empty((0, truth_columns(self.spec)))
        return np.concatenate([none, *(self._norms[block][place, None] for block, place in places)])

    def unbroken(self) -> dict[int, int]:
        """Return simulation -> number of time steps held from the first on without a gap."""
        out: dict[int, int] = {}
        for simulation, step in self._keys():
            if step == out.setdefault(simulation, 0):
                out[simulation] += 1
        return out

    def predictable(self) -> list[tuple[int, int]]:
        """Return (simulation, step) of what can be predicted, both ascending.

        With window = 1 these are all time steps. With window > 1 they are the first time steps of all bundles that are
        held together with the bundle before them; bundles begin at multiples of their length, so that no time step is
        predicted twice.
        """
        keys = self._keys()
        if self.spec.window == 1:
            return keys
        held, bundle = set(keys), self.spec.bundle
        return [
            (simulation, step)
            for simulation, step in keys
            if step % bundle == 0 and all((simulation, step + k) in held for k in range(-bundle, bundle))
        ]

    def predict(
        self, trainer: Trainer, keys: list[tuple[int, int]], *, each_member: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Predict time steps, chunk by chunk.

        Args:
            trainer: the model.
            keys: (simulation, step), as in `predictable`; with window > 1 a key stands for the bundle that begins there
                (`bundle` rows), which is predicted from the true bundle before it.
            each_member: whether to give the predictions of each member of an ensemble, (members, n, width).

        Yields:
            Predicted and true rows (n, width), in raw units, on the trainer's device.
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
            chunks = trainer.predict_chunks(inputs, state, each_member=each_member)
            prediction = torch.cat(list(chunks), dim=int(each_member))
            shape = (trainer.members, *true.shape) if each_member else true.shape
            yield prediction.reshape(shape), true.to(trainer.device)

    def state_dict(self) -> dict[str, Any]:
        """Return all time steps, for a checkpoint; the blocks are not copied."""
        with self._lock:
            return {
                "keys": np.array(list(self._rows), dtype=np.int64).reshape(-1, 2),
                "inputs": list(self._inputs),
                "targets": list(self._targets),
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the content by that of a checkpoint.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: the state belongs to another spec.
        """
        for got, want in ((state["inputs"], self.spec.n_inputs), (state["targets"], self.spec.width)):
            for block in got:
                if tuple(block.shape) != (self._block_rows, want):
                    raise ValueError(
                        f"held-out block of shape {tuple(block.shape)}: expected {(self._block_rows, want)} for this "
                        "study"
                    )
        norms = [truth_norms(self.spec, block) for block in state["targets"]]
        with self._lock:
            self._inputs, self._targets, self._norms = list(state["inputs"]), list(state["targets"]), norms
            self._rows = {(int(simulation), int(step)): row for row, (simulation, step) in enumerate(state["keys"])}

    def _keys(self) -> list[tuple[int, int]]:
        with self._lock:
            return sorted(self._rows)
