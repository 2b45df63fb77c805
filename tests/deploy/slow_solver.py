"""Programs and solvers that take their time, so that tests can interrupt them; run as a program, one simulation."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock_client import Client, Field


class Slow:
    """`steps` time steps of a field of four points, `pause` seconds apart; none begins while the file `closed` exists."""

    def __init__(self, steps: int = 4, pause: float = 0.05, closed: str = "") -> None:
        self.steps, self.closed = steps, closed
        self.pause = float(os.environ.get("SOLVER_PAUSE", pause))  # a test may hasten a study that it resumes
        self.fields: Mapping[str, Field] = {"u": Field(shape=(4,), dtype="float32")}

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, dict[str, NDArray[np.float32]]]]:
        for step in range(self.steps):
            time.sleep(self.pause)
            while self.closed and Path(self.closed).exists():
                time.sleep(0.02)
            yield float(step), {"u": np.full(4, parameters["a"] * step, dtype=np.float32)}


class Dying:
    """Ends its whole process as soon as it is made."""

    fields: Mapping[str, Field] = {"u": Field(shape=(4,), dtype="float32")}

    def __init__(self) -> None:
        if os.environ.get("OMP_NUM_THREADS") == "1":  # in a worker
            print("this solver needs a licence", flush=True)
            os._exit(7)

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, dict[str, NDArray[np.float32]]]]:
        yield 0.0, {"u": np.full(4, parameters["a"], dtype=np.float32)}


def main() -> None:
    with Path(os.environ["SOLVER_PIDS"]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    with Client() as client:
        simulation = client.simulation()
        solver = Slow(
            steps=int(os.environ.get("SOLVER_STEPS", "100")), pause=float(os.environ.get("SOLVER_PAUSE", "0.1"))
        )
        simulation.announce(**solver.fields)
        for step, (_, fields) in enumerate(solver.run(simulation.parameters)):
            simulation.send(step, **fields)
        simulation.finish()


if __name__ == "__main__":
    main()
