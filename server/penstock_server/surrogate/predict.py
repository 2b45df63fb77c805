"""Predictions of an exported surrogate, with torch and numpy alone."""

from __future__ import annotations

import io
import json
import math
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from penstock_client.errors import PenstockError
from penstock_server.surrogate.program_check import UnsafeProgram, check_program

PROGRAM = "surrogate.pt2"
"""File name of the torch.export program."""

CARD = "card.json"
"""File name of the model card."""

FORMAT = 2
"""Version of the model card."""

_CHUNK_BYTES = 64 * 2**20


class PredictError(PenstockError):
    """The exported model is missing or damaged, or cannot predict what was asked for."""


@dataclass(frozen=True)
class Prediction:
    """Predicted fields.

    Attributes:
        times: times of the prediction.
        fields: field name to values (times, *shape, components), float32, raw units; float64 for a field with a reference
            ([fields]), which has been added.
        warnings: a line for each input outside the trained range.
        spread: of an ensemble, the standard deviation over its members (n - 1), as `fields`, float32; empty for one
            model. With windows it is that of a single step, from the mean of the step before.
    """

    times: list[float]
    fields: dict[str, NDArray[np.floating[Any]]]
    warnings: list[str]
    spread: dict[str, NDArray[np.floating[Any]]] = default(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Return the fields by name and, of an ensemble, the spread of each as NAME_spread."""
        return {**self.fields, **{f"{name}_spread": values for name, values in self.spread.items()}}


class Surrogate:
    """An exported surrogate.

    Args:
        program: the torch.export program as a module.
        card: content of card.json.

    Attributes:
        card: content of card.json.
        parameters: names of the parameters.
        width: numbers of all fields at one time.
    """

    def __init__(self, program: torch.nn.Module, card: dict[str, Any]) -> None:
        self._program = program
        self.card = card
        self.parameters: tuple[str, ...] = tuple(card["parameters"])
        self.width = sum(_size(f) for f in card["fields"])
        self._bundle = int(card["bundle"])

    @classmethod
    def load(cls, directory: Path) -> Surrogate:
        """Load an exported surrogate. It is a program, as the study that it comes from: load none of a stranger.

        Args:
            directory: run directory, or its model/ folder.

        Raises:
            PredictError: there is no exported model, it cannot be read, or it holds code that loading would run.
        """
        folder = next((d for d in (directory, directory / "model") if (d / CARD).is_file()), None)
        if folder is None:
            raise PredictError(
                f"no exported model in {directory} or {directory / 'model'}: run `penstock export {directory}` first"
            )
        try:
            card = json.loads((folder / CARD).read_text())
            if card["format"] != FORMAT:
                raise PredictError(f"{folder / CARD} has format {card['format']}, expected {FORMAT}: export it again")
            if not zipfile.is_zipfile(folder / PROGRAM):  # torch would log a traceback first
                raise PredictError(f"{folder / PROGRAM} is missing or damaged: export it again")
            program = load_program((folder / PROGRAM).read_bytes())
        except PredictError:
            raise
        except UnsafeProgram as error:
            raise PredictError(
                f"{folder / PROGRAM} is refused: {error}, which `penstock export` does not write and which could run code; "
                "export the model again, and load no program of a stranger"
            ) from error
        except Exception as error:  # torch fails in many ways on a damaged file
            raise PredictError(f"the exported model in {folder} cannot be read: {error}; export it again") from error
        return cls(program, card)

    def check(self, parameters: Mapping[str, float], times: Sequence[float] = ()) -> list[str]:
        """Compare a question with the trained range.

        Args:
            parameters: parameter name to value.
            times: times of the prediction.

        Returns:
            A line for each parameter outside the trained range, and one for the times.

        Raises:
            PredictError: a parameter is missing, unknown or not a finite number.
        """
        for name in self.parameters:
            if name not in parameters:
                raise PredictError(f"parameter {name} is missing: the model needs {', '.join(self.parameters)}")
        for name, value in parameters.items():
            if name not in self.parameters:
                raise PredictError(f"no parameter {name!r}: the model has {', '.join(self.parameters)}")
            if not math.isfinite(value):
                raise PredictError(f"{name} = {value}: expected a finite number")
        warnings = []
        for name in self.parameters:
            low, high = self.card["parameters"][name]["bounds"]
            if not _within(parameters[name], low, high):
                warnings.append(f"{name} = {parameters[name]:g} lies outside the trained range [{low:g}, {high:g}]")
        low, high = self.card["time"]["trained"]
        outside = [t for t in times if low is not None and not _within(t, low, high)]
        if outside:
            shown = ", ".join(f"{t:g}" for t in outside[:3]) + (", ..." if len(outside) > 3 else "")
            warnings.append(f"time = {shown} lies outside the trained range [{low:g}, {high:g}]")
        return warnings

    def predict(
        self,
        parameters: Mapping[str, float],
        times: Sequence[float] | None = None,
        *,
        initial: Mapping[str, NDArray[np.floating[Any]]] | None = None,
    ) -> Prediction:
        """Predict the fields at given times.

        A model of windows predicts step by step, each prediction being the state of the next, so that its times must be
        consecutive.

        Args:
            parameters: parameter name to value.
            times: numbers of time steps or solver times (`card["time"]["kind"]`); None for the last trained time.
            initial: for a model of windows, field name to values one time step before times[0], (*shape, components);
                with a bundle above 1 (`card["bundle"]`), of the bundle before times[0], (bundle, *shape, components).

        Returns:
            The predicted fields.

        Raises:
            PredictError: parameters, times or initial fields are missing or do not fit the model.
        """
        times = self.times(times)
        warnings = self.check(parameters, times)
        point = [float(parameters[name]) for name in self.parameters]
        inputs = torch.tensor([[*point, float(t)] for t in times], dtype=torch.float32)
        windowed = self.card["window"] > 1
        if windowed != (initial is not None):
            need = (
                "needs the fields one time step before"
                if windowed
                else "takes no initial fields: it predicts each time alone"
            )
            raise PredictError(f"the model {need} (window = {self.card['window']})")
        with torch.no_grad():
            rows = self._at_once(inputs) if initial is None else self._roll_out(inputs, self._state(initial))
        return self._prediction(times, rows, warnings)

    def predict_many(self, questions: Sequence[tuple[Mapping[str, float], Sequence[float]]]) -> list[Prediction]:
        """Predict at several points together; for a model of single time steps.

        Args:
            questions: parameters, checked already, and times of each.

        Returns:
            The predicted fields of each, without warnings.
        """
        rows = [
            [*(float(parameters[name]) for name in self.parameters), float(t)]
            for parameters, times in questions
            for t in times
        ]
        with torch.no_grad():
            predicted = self._at_once(torch.tensor(rows, dtype=torch.float32))
        sizes = [len(times) for _, times in questions]
        parts = zip(*(torch.split(rows, sizes) for rows in predicted), strict=True)
        return [self._prediction(times, part, []) for (_, times), part in zip(questions, parts, strict=True)]

    def times(self, asked: Sequence[float] | None) -> Sequence[float]:
        """Return the times to predict at: those asked for, or the last trained time.

        Raises:
            PredictError: there are none.
        """
        if asked is None:
            last = self.card["time"]["trained"][1]
            if last is None:
                raise PredictError("the model saw no sample, so it has no last trained time: give times")
            return [last]
        if len(asked) == 0:
            raise PredictError("times is empty: give at least one time")
        return asked

    def _at_once(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Rows (n, width) of the prediction and, of an ensemble, of its spread."""
        chunk = max(1, _CHUNK_BYTES // (4 * self.width))
        evaluate = evaluate_program(self._program)
        parts = [evaluate([part]) for part in torch.split(inputs, chunk)]
        return [torch.cat(rows) for rows in zip(*parts, strict=True)]

    def _roll_out(self, inputs: torch.Tensor, state: torch.Tensor) -> list[torch.Tensor]:
        evaluate = evaluate_program(self._program)
        bundles = []
        for i in range(0, len(inputs), self._bundle):
            outputs = evaluate([inputs[i : i + 1], state])
            state = outputs[0]
            bundles.append([rows.reshape(self._bundle, self.width) for rows in outputs])
        return [torch.cat(parts)[: len(inputs)] for parts in zip(*bundles, strict=True)]

    def _state(self, initial: Mapping[str, NDArray[np.floating[Any]]]) -> torch.Tensor:
        parts = []
        before = () if self._bundle == 1 else (self._bundle,)
        for field in self.card["fields"]:
            want = (*before, *field["shape"], field["components"])
            if field["name"] not in initial:
                raise PredictError(f"the initial field {field['name']} {want} is missing")
            values = np.asarray(initial[field["name"]], np.float64) - field.get("reference", 0.0)
            if values.size != math.prod(want):
                raise PredictError(f"the initial field {field['name']} has shape {values.shape}, expected {want}")
            parts.append(torch.from_numpy(values.astype(np.float32).reshape(self._bundle, -1)))
        return torch.cat(parts, dim=1).reshape(1, -1)

    def _prediction(self, times: Sequence[float], rows: Sequence[torch.Tensor], warnings: list[str]) -> Prediction:
        fields = self._split(rows[0])
        for f in self.card["fields"]:
            reference = f.get("reference", 0.0)  # cards of earlier versions have none
            if reference:
                fields[f["name"]] = fields[f["name"]].astype(np.float64) + reference
        spread = self._split(rows[1]) if len(rows) > 1 else {}
        return Prediction([float(t) for t in times], fields, warnings, spread)

    def _split(self, rows: torch.Tensor) -> dict[str, NDArray[np.floating[Any]]]:
        values = rows.numpy()
        return {
            f["name"]: values[:, f["offset"] : f["offset"] + _size(f)].reshape(len(rows), *f["shape"], f["components"])
            for f in self.card["fields"]
        }


def load_program(content: bytes) -> torch.nn.Module:
    """Load a torch.export program.

    Args:
        content: of the file.

    Raises:
        UnsafeProgram: it holds code that loading would run.
    """
    check_program(content)
    with warnings.catch_warnings():  # of torch 2.11, about its own way of reading
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        return torch.export.load(io.BytesIO(content)).module()


def evaluate_program(program: torch.nn.Module) -> Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]:
    """Return a function that maps inputs and, with windows, the state to the list of outputs."""

    def evaluate(arguments: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        outputs = program(*arguments)
        return list(outputs) if isinstance(outputs, tuple | list) else [outputs]

    return evaluate


def _size(field: dict[str, Any]) -> int:
    return int(math.prod(field["shape"])) * int(field["components"])


def _within(value: float, low: float, high: float) -> bool:
    """Return whether low <= value <= high, up to the rounding of the range to float32."""
    slack = 1e-6 * max(abs(low), abs(high))
    return low - slack <= value <= high + slack
