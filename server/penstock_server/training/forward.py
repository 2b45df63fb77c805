"""The model's forward pass in training: in [training] precision, and through torch.compile with [training] compile."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penstock_server.study import Batch, TrainingSection


class Forward:
    """Predictions to train on, always float32.

    With precision "bfloat16" torch.autocast computes matrix products in bfloat16. Weights, gradients and the loss stay
    float32.

    Args:
        model: the module whose weights are trained; its state_dict stays as it is.
        device: of the model.
        training: [training] of the study file.
    """

    def __init__(self, model: nn.Module, device: torch.device, training: TrainingSection) -> None:
        self._model = model
        self._device = device.type
        self._low = training.precision == "bfloat16"
        self._share = max(1, training.batch_size // training.ranks)
        self._compiled = CompiledModel(model, 4 * (training.pushforward + 1)) if training.compile else None

    @property
    def warnings(self) -> list[str]:
        """For the report."""
        return [self._compiled.failure] if self._compiled is not None and self._compiled.failure else []

    def compiles(self, parts: Sequence[Batch]) -> bool:
        """Whether the compiled model takes these parts of a batch.

        Each number of samples is compiled for itself, so that the kernels of a batch do not depend on the batches
        before it. The smaller batches at the end of a study are few: the model itself takes them. It also takes parts of
        one sample, which batch normalisation treats in a way of its own.

        Args:
            parts: of one batch.
        """
        samples = sum(len(part) for part in parts)
        return self._compiled is not None and samples >= self._share and min(len(part) for part in parts) > 1

    def __call__(self, *arguments: Tensor, compiled: bool = False) -> Tensor:
        """Predict in normalised units.

        Args:
            arguments: of the model.
            compiled: whether to use the compiled model.
        """
        model = self._compiled if compiled and self._compiled is not None else self._model
        if not self._low:
            return model(*arguments)
        # A context for each call: until its end, torch keeps the weights in bfloat16, and those of a call without
        # gradient have none in the next call either.
        with torch.autocast(self._device, torch.bfloat16):
            predictions: Tensor = model(*arguments)
        return predictions.float()


class CompiledModel:
    """A model through torch.compile; the model itself from the first failure of the compiled one on.

    Args:
        model: to compile; it is compiled as it is called.
        variants: numbers of rows, with and without gradient, for which it may be compiled.

    Attributes:
        failure: why the compiled model is not used any more; "" while it is.
    """

    def __init__(self, model: nn.Module, variants: int) -> None:
        self._model, self._variants = model, variants
        self._compiled: Callable[..., Tensor] | None = None
        self.failure = ""

    def __call__(self, *arguments: Tensor) -> Tensor:
        """Predict as the model does."""
        if self.failure:
            return self._model(*arguments)  # type: ignore[no-any-return]
        try:
            if self._compiled is None:
                self._compiled = _compile(self._model, self._variants)
            return self._compiled(*arguments)
        except Exception as error:  # compilers fail in many ways
            predictions: Tensor = self._model(*arguments)  # raises where the model itself has failed
            what = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
            self.failure = (
                f"[training] compile = true: torch.compile failed ({type(error).__name__}: {what[:200]}), and training "
                "went on without it; expected a C++ compiler (apt-get install g++) and a model that torch can compile"
            )
            return predictions


def _compile(model: nn.Module, variants: int) -> Callable[..., Tensor]:
    # By default it is a folder in /tmp with a name that another user may have taken; what is in it is executed.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "torch"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    options: dict[str, Any] = {
        "cpp_cache_precompile_headers": False,  # they would be in /tmp all the same
        # Without threads and processes that stay when all is compiled.
        "compile_threads": int(os.environ.get("TORCHINDUCTOR_COMPILE_THREADS", "1")),
    }
    compiled: Callable[..., Tensor] = torch.compile(model, dynamic=False, options=options)
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, variants)
    return compiled
