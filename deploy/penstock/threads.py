"""Which cores solvers and training get: planned together, since more busy threads than cores bring training to a crawl.

With OpenMP threads spinning beside solvers on the same cores, an MLP was seen to fall from 1,000 to 31 samples/s.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from penstock_server.config import Study

# Threads that wait give their core back at once instead of spinning.
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
# One solver rank is one core: more of them come from concurrency and ranks, which the budget knows.
SINGLE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ThreadBudget:
    """cores: of this machine that we may use. solvers: those that solvers take. training: threads of each trainer rank."""

    cores: int
    solvers: int
    training: int
    reason: str

    def line(self) -> str:
        """The choice, for the log."""
        return f"cores: {self.cores} available, {self.solvers} for solvers, {self.training} training threads a rank ({self.reason})"


def available_cores() -> int:
    """Cores that this process may run on (its affinity, as Slurm and containers set it)."""
    return len(os.sched_getaffinity(0))


def plan_threads(study: Study, *, solvers_beside: bool = True, cores: int | None = None) -> ThreadBudget:
    """Share the cores between solvers and training.

    Args:
        study: concurrency x ranks single-threaded solver ranks run beside training.ranks trainer ranks.
        solvers_beside: False when the solver is advanced by the training process itself, in turn.
        cores: default: `available_cores()`.
    """
    cores = available_cores() if cores is None else cores
    solvers = min(study.solver.concurrency * study.solver.ranks, cores) if solvers_beside else 0
    if isinstance(study.training.threads, int):
        return ThreadBudget(cores, solvers, study.training.threads, f"[training] threads = {study.training.threads}")
    training = max(1, (cores - solvers) // study.training.ranks)
    return ThreadBudget(cores, solvers, training, "what solvers leave free" if solvers else "the solver runs in between")


def quiet_waiting() -> None:
    """Make the OpenMP of this process and its children wait without spinning; call it before torch is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def solver_environment() -> dict[str, str]:
    """What a worker's environment gets on top of this process's."""
    return {**QUIET, **SINGLE}
