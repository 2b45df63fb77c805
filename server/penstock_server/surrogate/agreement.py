"""Whether an exported model gives the numbers of the trained one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from penstock_client.errors import PenstockError
from penstock_server.training import Normaliser

TOLERANCE = 1e-5
"""Largest difference, relative to the largest predicted value of the field."""
BATCHES = (1, 2, 7)
"""Samples that are compared at a time: an exported model takes any number."""

Evaluate = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Maps inputs and, with windows, the state before to the outputs."""


class ExportError(PenstockError):
    """A model cannot be exported, or the exported one gives other numbers."""


def expect_agreement(exported: Evaluate, trained: Evaluate, normaliser: Normaliser, form: str) -> None:
    """Compare an exported model with the trained one at random points of the trained range.

    Args:
        exported: the exported model, in raw units.
        trained: the trained model, in raw units, on the CPU.
        normaliser: statistics of the training samples.
        form: what was exported, for the error.

    Raises:
        ExportError: they differ by more than TOLERANCE.
    """
    spec = normaliser.spec
    for arguments in _points(normaliser):
        try:
            with torch.no_grad():
                got = exported(arguments)
        except Exception as error:  # the exported model is made of a user's operations
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExportError(
                f"the exported model ({form}) fails on {len(arguments[0])} samples: {first_line}"
            ) from error
        with torch.no_grad():
            want = trained(arguments)
        rows = [tensor.reshape(-1, spec.width) for tensor in want]
        for name, columns in spec.columns().items():
            largest = float(rows[0][:, columns].abs().max())
            for of_exported, of_trained in zip(got, rows, strict=True):
                difference = float((of_exported.reshape(-1, spec.width) - of_trained)[:, columns].abs().max())
                if not difference <= TOLERANCE * largest:  # also where it is not a number
                    raise ExportError(
                        f"the exported model ({form}) differs from the trained one by {difference:.3g} in field {name}, "
                        f"whose largest predicted value is {largest:.3g}: expected at most {TOLERANCE:g} of it, so no "
                        "file was written; a model that draws random numbers in evaluation mode cannot be exported"
                    )


def _points(normaliser: Normaliser) -> Iterator[list[Tensor]]:
    """Yield inputs (n, n_inputs) and, with windows, states (n, state_width), in raw units."""
    generator = torch.Generator().manual_seed(0)  # the study's random numbers are left as they are
    spec, affine = normaliser.spec, normaliser.affine()
    low, high = (torch.from_numpy(np.where(np.isfinite(row), row, 0.0)).float() for row in normaliser.input_range())
    for n in BATCHES:
        inputs = low + (high - low) * torch.rand(n, spec.n_inputs, generator=generator)
        states = [torch.randn(n, spec.state_width, generator=generator)] if spec.window > 1 else []
        yield [inputs, *(affine.raw_targets(state) for state in states)]
