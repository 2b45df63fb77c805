"""Python solvers that do what a worker must survive: end the interpreter, raise KeyboardInterrupt, fork."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from penstock_client import Field


def leave() -> None:
    sys.exit("the licence has expired")


def interrupt() -> None:
    raise KeyboardInterrupt("Ctrl-C in a library")


def fork() -> None:
    """End a forked child right after its start, as Pool.terminate does."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join()
    if child.exitcode != -15:
        raise RuntimeError(f"the child ended with {child.exitcode}")


class Rude:
    """`steps` time steps of a field of four points; does `deed` before the second one."""

    fields: Mapping[str, Field] = {"u": Field(shape=(4,), dtype="float32")}

    def __init__(self, deed: str, steps: int = 10) -> None:
        self.steps = steps
        self.deed: Callable[[], None] = {"leave": leave, "interrupt": interrupt, "fork": fork}[deed]

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, dict[str, NDArray[np.float32]]]]:
        for step in range(self.steps):
            if step == 1:
                self.deed()
            yield float(step), {"u": np.full(4, parameters["a"] * step, dtype=np.float32)}
