"""The worker: asks the server for simulation after simulation and runs the study's solver for each.

    python -m penstock_solvers.worker --connect RUN/connect.json

It needs numpy, pyzmq and the requirements of the solver, and runs on any machine from which the server can be reached.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from penstock_client import (
    Abandoned,
    Client,
    ConnectError,
    PenstockError,
    Reason,
    Refused,
    ServerLost,
    Simulation,
    read_connect_file,
    stream_solver,
)
from penstock_client.client import ATTEMPT_VARIABLE, SIMULATION_VARIABLE
from penstock_client.connect_file import ENVIRONMENT_VARIABLE
from penstock_solvers.health import answer_health
from penstock_solvers.introduction import introduction
from penstock_solvers.processes import Runner, SolverFailed, Task, keep_from_children
from penstock_solvers.solver import EXTERNAL, make_solver

HAND_BACK_SECONDS = 2.0  # for which a leaving worker waits for the server
CONNECT_SECONDS = 30.0  # for which it tries to reach a server; PENSTOCK_CONNECT_TIMEOUT overrides it
RETRY_SECONDS = 0.3  # between two readings of connect.json
LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

CURED_BY_RECONNECTING = (Reason.INCARNATION, Reason.NO_HELLO, Reason.GIVEN_UP)  # reasons of refusals

_log = logging.getLogger("penstock.worker")

RunSimulation = Callable[[Client, Simulation], None]
"""Runs one simulation and reports its end to the server."""


class _Leave(BaseException):
    """Raised by the handlers of LEAVE_SIGNALS.

    It is not an Exception, because handlers of a solver's own errors would catch it.
    """


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise _Leave


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def run_worker(connect: Path) -> int:
    """Run simulations until the study has none left.

    If the server restarts and replaces connect.json within [server] server_timeout, the worker goes on with the new
    server; the current simulation is dropped, because the new server hands it out again. On SIGTERM, SIGINT or
    SIGHUP the worker hands its simulation back and ends.

    Args:
        connect: path of connect.json.

    Returns:
        Exit code: 0 if the study has ended or SIGTERM was received, 1 if the server is lost or the solver unusable.
    """
    # SIGINT too, so that a KeyboardInterrupt can only be one that a solver raises itself.
    for number in LEAVE_SIGNALS:
        # Ignored already: SIGHUP under nohup, SIGINT of a shell script's background process.
        if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGTERM:
            signal.signal(number, _leave)
    keep_from_children(LEAVE_SIGNALS, _leave)
    # The launcher searches for this line, so it is printed without a time; all further lines are logged.
    print(f"penstock worker: {introduction()}", file=sys.stderr, flush=True)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    worker = _Worker(connect.absolute())
    answer_health(worker.health)
    try:
        worker.run()
    except _Leave:
        _ignore_signals()
        worker.hand_back()
    except PenstockError as error:
        _log.error("%s", error)
        return 1
    finally:
        _ignore_signals()  # it is ending already
        worker.close()
    return 0


class _Worker:
    """Runs simulations for the study's server, and for each server that replaces it after a restart.

    Args:
        connect: absolute path of connect.json.
    """

    def __init__(self, connect: Path) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._simulation: Simulation | None = None  # the last one
        self._solver = ""  # the server's description of the solver
        self._run_simulation: RunSimulation | None = None
        self._resources = ExitStack()  # of the solver

    def run(self) -> None:
        """Run simulations until the server has none left.

        Raises:
            PenstockError: the server is lost and no other has replaced it, or the solver is unusable.
        """
        patience = _connect_seconds()
        lost: int | None = None  # incarnation of the server that was lost
        trouble: PenstockError | None = None
        while True:
            client = self._client = _find_server(self._connect, lost, patience, trouble)
            patience = client.welcome.server_timeout_ms / 1000
            try:
                self._run_study(client)
                return
            except (ServerLost, Refused) as error:
                if isinstance(error, Refused) and error.reason not in CURED_BY_RECONNECTING:
                    raise
                # A server that has given this client up still runs; otherwise wait for a new incarnation.
                given_up = isinstance(error, Refused) and error.reason is not Reason.INCARNATION
                lost, trouble = None if given_up else client.incarnation, error
                what = "connecting again" if given_up else f"waiting up to {patience:.0f} s for another server"
                _log.warning("%s; %s", error, what)
                self._client = None
                client.close()

    def _run_study(self, client: Client) -> None:
        if self._run_simulation is None or client.welcome.solver != self._solver:
            self._resources.close()
            self._run_simulation = _simulation_runner(json.loads(client.welcome.solver), self._connect, self._resources)
            self._solver = client.welcome.solver
        while (simulation := client.next_simulation()) is not None:
            self._simulation = simulation
            self._run_simulation(client, simulation)

    def health(self) -> dict[str, object]:
        """Return how this worker is: whether a server answers it, and the last simulation that it was given."""
        client, simulation = self._client, self._simulation
        silent = None if client is None else client.silent()
        return {
            "well": client is not None and silent is not None and silent < client.welcome.server_timeout_ms / 1000,
            "server": "is looked for" if client is None else f"was heard {silent:.1f} s ago",
            "simulation": None if simulation is None else simulation.id,
        }

    def hand_back(self) -> None:
        """Return the current simulation to the server, if there is one and the server answers in time."""
        if self._client is not None:
            try:
                signal.setitimer(signal.ITIMER_REAL, HAND_BACK_SECONDS)
                self._client.leave()
            except PenstockError as error:
                _log.warning("left without telling the server: %s", error)
            except _Leave:
                _log.warning("left without telling the server: no answer within %g s", HAND_BACK_SECONDS)
            signal.setitimer(signal.ITIMER_REAL, 0)

    def close(self) -> None:
        """Close the connections and release the solver's resources."""
        self._resources.close()
        if self._client is not None:
            self._client.close()


def _find_server(connect: Path, lost: int | None, patience: float, trouble: PenstockError | None) -> Client:
    """Connect to the server that connect.json names, once it is a new incarnation.

    Args:
        connect: path of connect.json.
        lost: incarnation of the server that was lost, or None.
        patience: seconds to try.
        trouble: the error by which the previous server was lost; None for the first server.

    Raises:
        PenstockError: the last error, after `patience` seconds; for the first server at once if connect.json is
            missing.
    """
    deadline = time.monotonic() + patience
    first = trouble is None
    while True:
        try:
            found = read_connect_file(connect).incarnation
            if found != lost:
                return Client(connect, timeout=max(0.1, deadline - time.monotonic()))
        except Refused as refused:
            if refused.reason not in CURED_BY_RECONNECTING:
                raise
            trouble, lost = refused, found
        except (ConnectError, ServerLost) as error:
            if first and not connect.is_file():
                raise
            trouble = error
        if time.monotonic() >= deadline:
            failure = ConnectError if first else ServerLost
            raise failure(f"{trouble} (looked for another server in {connect} for {patience:.0f} s)") from trouble
        time.sleep(RETRY_SECONDS)


def _connect_seconds() -> float:
    text = os.environ.get("PENSTOCK_CONNECT_TIMEOUT", "")
    try:
        return float(text or CONNECT_SECONDS)
    except ValueError as error:
        raise ConnectError(f"PENSTOCK_CONNECT_TIMEOUT is {text!r}: expected seconds, such as 30") from error


def _simulation_runner(solver: dict[str, Any], connect: Path, stack: ExitStack) -> RunSimulation:
    """Return the function that runs one simulation of this study."""
    directory = solver["directory"]
    if directory not in sys.path:
        sys.path.insert(0, directory)  # the folder of the study file may contain the user's solver
    adapter = solver["adapter"]
    if adapter is not None and adapter not in EXTERNAL:
        python_solver = make_solver(adapter, solver["options"])
        return lambda client, simulation: _exhaust(
            stream_solver(python_solver, simulation, client.welcome.fields, solver["every"])
        )
    runner = _runner(solver, stack)
    return lambda _client, simulation: _run_process(runner, simulation, connect)


def _runner(solver: dict[str, Any], stack: ExitStack) -> Runner:
    if solver["adapter"] == "openfoam":
        from penstock_solvers.openfoam import OpenFOAMRunner

        return stack.enter_context(OpenFOAMRunner(solver))
    from penstock_solvers.processes import CommandRunner

    return stack.enter_context(CommandRunner(solver))


def _run_process(runner: Runner, simulation: Simulation, connect: Path) -> None:
    """Run a solver as a process that streams by itself, and report how the process ended."""
    environment = {
        ENVIRONMENT_VARIABLE: str(connect),
        SIMULATION_VARIABLE: str(simulation.id),
        ATTEMPT_VARIABLE: str(simulation.attempt),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    # connect.json is in the run directory; the connect file of a worker with its own key is in workers/ there.
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
        simulation.fail(str(failed), final=failed.final)


def _exhaust(steps: Any) -> None:
    for _ in steps:
        pass


def main() -> None:
    """Run `python -m penstock_solvers.worker`."""
    parser = argparse.ArgumentParser(prog="penstock worker", description="Serve simulations of a running study.")
    parser.add_argument("--connect", type=Path, required=True, help="connect.json in the study's run directory")
    parser.add_argument("--parent", type=int, help="process id of a launcher that this worker must not outlive")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        _end_with_parent(arguments.parent)
    sys.exit(run_worker(arguments.connect))


def _end_with_parent(parent: int) -> None:
    """Make the kernel send SIGTERM to this process when its parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has died before the call above
        sys.exit(1)


if __name__ == "__main__":
    main()
