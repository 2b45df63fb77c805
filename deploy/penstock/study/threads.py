"""CPU threads: solvers and training share the cores, and neither may take more than its share.

With more OpenMP threads than free cores, threads that wait for each other spin on the cores that the others need: the same training
was seen to fall from 1,000 to 31 samples/s beside busy solvers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from penstock_server.study import Study

SOLVER_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
TRAINING_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
"""Waiting OpenMP threads sleep instead of spinning."""


@dataclass(frozen=True)
class ThreadBudget:
    """cores: that this process may use. solvers: cores that solvers take. training: threads of each trainer rank.
    own: the cores that training has to itself, by number; empty where all share all."""

    cores: int
    solvers: int
    training: int
    own: tuple[int, ...] = ()

    def __str__(self) -> str:
        own = f" on cores of its own ({', '.join(map(str, self.own))})" if self.own else ""
        return f"{self.cores} cores: {self.solvers} for solvers, {self.training} threads for each trainer rank{own}"


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def plan_threads(study: Study, cores: int | None = None, *, solvers_here: bool = True) -> ThreadBudget:
    """Share out the cores: each solver rank one, training what is left, and at least one; or what the study file says.

    With [training] own_cores, the last cores are training's alone, one for each of its threads, as long as one is left for the rest.
    """
    cores = available_cores() if cores is None else cores
    none_here = study.training.source is not None or not solvers_here
    solvers = 0 if none_here else min(cores, study.solver.concurrency * study.solver.ranks)
    asked = study.training.threads
    threads = asked if isinstance(asked, int) else max(1, (cores - solvers) // study.training.ranks)
    usable = sorted(os.sched_getaffinity(0))[:cores]
    own = tuple(usable[-threads * study.training.ranks :]) if study.training.own_cores else ()
    if len(own) >= len(usable):
        own = own[1:]
    return ThreadBudget(cores, min(solvers, cores - len(own)), threads, own)


@contextmanager
def cores_for_the_rest(budget: ThreadBudget) -> Iterator[None]:
    """Keep this process, and all that it starts meanwhile, off the cores that training has to itself."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before - set(budget.own))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def quiet_waiting() -> None:
    """Make the OpenMP of this process and its children wait without spinning; to be called before torch is imported."""
    for name, value in TRAINING_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
