"""CPU threads: how solvers and training share the cores.

With more OpenMP threads than free cores, threads that wait spin on the cores that others need: one training fell from
1,000 to 31 samples/s beside busy solvers.
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
    """How many cores and threads solvers and training take.

    Attributes:
        cores: that this process may use.
        solvers: cores that solvers take.
        training: threads of each trainer rank.
        own: the numbers of the cores that only training uses; empty where all share all.
    """

    cores: int
    solvers: int
    training: int
    own: tuple[int, ...] = ()

    def __str__(self) -> str:
        own = f" on cores of its own ({', '.join(map(str, self.own))})" if self.own else ""
        return f"{self.cores} cores: {self.solvers} for solvers, {self.training} threads for each trainer rank{own}"


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def plan_threads(study: Study, cores: int | None = None, *, solvers_here: bool = True) -> ThreadBudget:
    """Divide the cores between solvers and training.

    Each solver rank takes one core, training the rest, at least one, unless [training] threads gives a number. With
    [training] own_cores only training uses the last cores, one for each of its threads, as long as one is left for
    everything else.

    Args:
        study: the study to run.
        cores: that may be used; default: those of this process.
        solvers_here: solvers run on this machine.
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
def keep_off_training_cores(budget: ThreadBudget) -> Iterator[None]:
    """Keep this process, and all that it starts meanwhile, off the cores that only training uses."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before - set(budget.own))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def make_openmp_wait_passively() -> None:
    """Let OpenMP threads of this process and its children wait without spinning; call it before importing torch."""
    for name, value in TRAINING_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
