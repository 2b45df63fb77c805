"""The worker: asks for simulation after simulation and runs the study's solver for each.

    python -m penstock_solvers.worker --connect RUN/connect.json

needs numpy and pyzmq, and what the solver needs; it can be started anywhere that reaches the server.
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
from contextlib import ExitStack, suppress
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
from penstock_solvers.introduction import introduction
from penstock_solvers.processes import Runner, SolverFailed, Task
from penstock_solvers.solver import EXTERNAL, make_solver

HAND_BACK_SECONDS = 2.0  # that a worker which must leave waits for the server
CONNECT_SECONDS = 30.0  # that it looks for a server, unless PENSTOCK_CONNECT_TIMEOUT says otherwise
LOOK_SECONDS = 0.3  # between two looks at connect.json
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

OUTLIVED = (Reason.INCARNATION, Reason.NO_HELLO, Reason.GIVEN_UP)  # refusals that a client connected anew would not get

_log = logging.getLogger("penstock.worker")

Serve = Callable[[Client, Simulation], None]
"""Runs one simulation and reports how it ended."""


class _Leave(BaseException):
    """The worker has been asked to go (SIGTERM), or has taken too long to. No Exception, or it would pass for a solver's own."""


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise _Leave


def run_worker(connect: Path) -> int:
    """Serve simulations until the study has none left; returns an exit code: 0 done, 1 the server is lost or the solver unusable.

    A server that is restarted, and writes connect.json anew within [server] server_timeout, is served on; what was under way of the
    one before is dropped, since the new one hands it out again. SIGTERM hands back what is running and ends the worker.
    """
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGALRM, _leave)
    # The launcher looks for this line, so it has no time before it; all that follows is logged.
    print(f"penstock worker: {introduction()}", file=sys.stderr, flush=True)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    worker = _Worker(connect.absolute())
    try:
        worker.run()
    except (_Leave, KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        worker.hand_back()
    except PenstockError as error:
        _log.error("%s", error)
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is going
        worker.close()
    return 0


class _Worker:
    """Serves one server after another, each a life of the same study."""

    def __init__(self, connect: Path) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._solver = ""  # as the server describes it
        self._serve: Serve | None = None
        self._resources = ExitStack()  # of the solver

    def run(self) -> None:
        """Until a server has no simulation left.

        Raises:
            PenstockError: the server is lost and no other has come in its place, or the solver is unusable.
        """
        patience = _connect_seconds()
        outlived: int | None = None
        trouble: PenstockError | None = None
        while True:
            client = self._client = _find_server(self._connect, outlived, patience, trouble)
            patience = client.welcome.server_timeout_ms / 1000
            try:
                self._serve_study(client)
                return
            except (ServerLost, Refused) as error:
                if isinstance(error, Refused) and error.reason not in OUTLIVED:
                    raise
                # A server that gave this client up is still there; any other has been outlived.
                given_up = isinstance(error, Refused) and error.reason is not Reason.INCARNATION
                outlived, trouble = None if given_up else client.incarnation, error
                what = "connecting again" if given_up else f"waiting up to {patience:.0f} s for another server"
                _log.warning("%s; %s", error, what)
                self._client = None
                client.close()

    def _serve_study(self, client: Client) -> None:
        if self._serve is None or client.welcome.solver != self._solver:
            self._resources.close()
            self._serve = _server_of(json.loads(client.welcome.solver), self._connect, self._resources)
            self._solver = client.welcome.solver
        while (simulation := client.next_simulation()) is not None:
            self._serve(client, simulation)

    def hand_back(self) -> None:
        """Return what is running, or has been given out meanwhile. The server may be gone, too: then there is nobody to hand back to."""
        if self._client is not None:
            with suppress(PenstockError, _Leave):
                signal.setitimer(signal.ITIMER_REAL, HAND_BACK_SECONDS)
                self._client.leave()
            signal.setitimer(signal.ITIMER_REAL, 0)

    def close(self) -> None:
        self._resources.close()
        if self._client is not None:
            self._client.close()


def _find_server(connect: Path, outlived: int | None, patience: float, trouble: PenstockError | None) -> Client:
    """Connect to the server of connect.json, once that is another one than the incarnation that has been outlived.

    patience: seconds. trouble: what became of the server before.

    Raises:
        PenstockError: the last trouble met, when patience is at an end; at once when there has never been a server.
    """
    deadline = time.monotonic() + patience
    first = trouble is None
    while True:
        try:
            found = read_connect_file(connect).incarnation
            if found != outlived:
                return Client(connect, timeout=max(0.1, deadline - time.monotonic()))
        except Refused as refused:
            if refused.reason not in OUTLIVED:
                raise
            trouble, outlived = refused, found
        except (ConnectError, ServerLost) as error:
            if first and not connect.is_file():
                raise
            trouble = error
        if time.monotonic() >= deadline:
            lost = ConnectError if first else ServerLost
            raise lost(f"{trouble} (looked for another server in {connect} for {patience:.0f} s)") from trouble
        time.sleep(LOOK_SECONDS)


def _connect_seconds() -> float:
    text = os.environ.get("PENSTOCK_CONNECT_TIMEOUT", "")
    try:
        return float(text or CONNECT_SECONDS)
    except ValueError as error:
        raise ConnectError(f"PENSTOCK_CONNECT_TIMEOUT is {text!r}: expected seconds, such as 30") from error


def _server_of(solver: dict[str, Any], connect: Path, stack: ExitStack) -> Serve:
    """How a simulation of this study is run."""
    directory = solver["directory"]
    if directory not in sys.path:
        sys.path.insert(0, directory)  # a user's own solver lies beside the study file
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
