"""The worker: asks for simulation after simulation and runs the study's solver for each.

    python -m penstock_solvers.worker --connect RUN/connect.json

needs numpy and pyzmq, and what the solver needs; it can be started anywhere that reaches the server.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from penstock_client import Abandoned, Client, PenstockError, Simulation, stream_solver
from penstock_client.client import ATTEMPT_VARIABLE, SIMULATION_VARIABLE
from penstock_client.connect_file import ENVIRONMENT_VARIABLE
from penstock_solvers.processes import Runner, SolverFailed, Task
from penstock_solvers.solver import EXTERNAL, make_solver

HAND_BACK_SECONDS = 2.0  # that a worker which must leave waits for the server
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

Serve = Callable[[Simulation], None]
"""Runs one simulation and reports how it ended."""


class _Leave(BaseException):
    """The worker has been asked to go (SIGTERM), or has taken too long to. No Exception, or it would pass for a solver's own."""


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise _Leave


def run_worker(connect: Path) -> int:
    """Serve simulations until the study has none left; returns an exit code: 0 done, 1 the server is lost or the solver unusable.

    SIGTERM hands back what is running and ends the worker.
    """
    connect = connect.absolute()
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGALRM, _leave)
    simulation: Simulation | None = None
    with ExitStack() as stack:
        try:
            client = stack.enter_context(Client(connect))
            serve = _server_of(json.loads(client.welcome.solver), client, connect, stack)
            while (simulation := client.next_simulation()) is not None:
                serve(simulation)
        except (_Leave, KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if simulation is not None and not simulation.over:
                # The server may be gone, too: then there is nobody to hand back to.
                with suppress(PenstockError, _Leave):
                    signal.setitimer(signal.ITIMER_REAL, HAND_BACK_SECONDS)
                    simulation.hand_back()
                signal.setitimer(signal.ITIMER_REAL, 0)
        except PenstockError as error:
            print(f"penstock worker: {error}", file=sys.stderr)
            return 1
    return 0


def _server_of(solver: dict[str, Any], client: Client, connect: Path, stack: ExitStack) -> Serve:
    """How a simulation of this study is run."""
    directory = solver["directory"]
    if directory not in sys.path:
        sys.path.insert(0, directory)  # a user's own solver lies beside the study file
    adapter = solver["adapter"]
    if adapter is not None and adapter not in EXTERNAL:
        python_solver = make_solver(adapter, solver["options"])
        return lambda simulation: _exhaust(
            stream_solver(python_solver, simulation, client.welcome.fields, solver["every"])
        )
    runner = _runner(solver, stack)
    return lambda simulation: _run_process(runner, simulation, connect)


def _runner(solver: dict[str, Any], stack: ExitStack) -> Runner:
    if solver["adapter"] == "openfoam":
        from penstock_solvers.openfoam_runner import OpenFOAMRunner

        return stack.enter_context(OpenFOAMRunner(solver))
    from penstock_solvers.command import CommandRunner

    return stack.enter_context(CommandRunner(solver))


def _run_process(runner: Runner, simulation: Simulation, connect: Path) -> None:
    """Run a solver that streams for itself, and report how its process ended."""
    environment = {
        ENVIRONMENT_VARIABLE: str(connect),
        SIMULATION_VARIABLE: str(simulation.id),
        ATTEMPT_VARIABLE: str(simulation.attempt),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    # Beside connect.json; the file of a worker with a key of its own lies in workers/.
    run = connect.parent.parent if connect.parent.name == "workers" else connect.parent
    logs = run / "logs"
    log = logs / f"simulation-{simulation.id}.log" if logs.is_dir() else None
    try:
        summary = runner.run(
            Task(simulation.id, simulation.attempt, simulation.parameters, environment, log),
            lambda: simulation.abandoned,
        )
        simulation.exited(json.dumps({k: v for k, v in vars(summary).items() if v not in (None, {})}))
    except Abandoned:
        simulation.hand_back()
    except SolverFailed as failed:
        simulation.fail(str(failed))


def _exhaust(steps: Any) -> None:
    for _ in steps:
        pass


def main() -> None:
    """`python -m penstock_solvers.worker`."""
    parser = argparse.ArgumentParser(prog="penstock worker", description="Serve simulations of a running study.")
    parser.add_argument("--connect", type=Path, required=True, help="connect.json in the study's run directory")
    parser.add_argument("--parent", type=int, help="process id of a launcher that this worker must not outlive")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        _die_with(arguments.parent)
    sys.exit(run_worker(arguments.connect))


def _die_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when its parent dies, however it dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has died before we could ask
        sys.exit(1)


if __name__ == "__main__":
    main()
