"""The simulations that run now: which clients serve them, and how each run ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite

from penstock_client.errors import Refused, WireError
from penstock_client.payloads import Finish, Outcome
from penstock_client.reasons import Reason
from penstock_client.wire import Header
from penstock_server.coordinator.assignments import Assignments
from penstock_server.coordinator.clients import KnownClient, KnownClients
from penstock_server.coordinator.pace import Pace
from penstock_server.coordinator.same_failures import SameFailures
from penstock_server.coordinator.simulations import Simulation, Simulations
from penstock_server.network import MAX_RANKS, MAX_TEXT
from penstock_server.study import MAX_STEPS, SolverSection
from penstock_server.telemetry import EventLog, plain_text

# A worker ends a solver at its wall time by itself; the coordinator fails the simulation of one that does not.
WALL_TIME_MARGIN = 1.25
WALL_TIME_MARGIN_SECONDS = 30.0  # a worker may have to prepare something first
MAX_RETURNS = 10  # of one simulation, by workers that must leave; each further one counts as a failure


@dataclass(slots=True)
class Run:
    """A simulation while it runs.

    Attributes:
        begun: when, in seconds on the coordinator's clock.
        attempt: number of the attempt.
        worker: name of the key of the worker that it was assigned to.
        clients: ids of those that serve it: a worker, and the solver ranks that it started, until they have finished.
        ranks_finished: solver ranks that have finished.
    """

    begun: float
    attempt: int
    worker: str
    clients: set[bytes]
    ranks_finished: set[int] = field(default_factory=set)


class Runs:
    """Begins runs and ends them, with a line in events.jsonl for each change.

    Args:
        simulations: the state of every simulation of the study.
        clients: those that may hold a simulation.
        events: of this run of the server.
        solver: the study's [solver]: which failures are tried again.
        assignments: tells the trainer ranks which attempts run.

    Attributes:
        stopping: True once the study stops; then what fails waits for a later incarnation.
        same_failures: whether the first simulations have all failed for the same reason.
    """

    def __init__(
        self,
        simulations: Simulations,
        clients: KnownClients,
        events: EventLog,
        solver: SolverSection,
        assignments: Assignments,
    ) -> None:
        self._simulations, self._clients, self._events, self._solver = simulations, clients, events, solver
        self._assignments = assignments
        self._runs: dict[int, Run] = {}
        self.pace = Pace()
        self.same_failures = SameFailures(min(solver.same_failures, len(simulations)))
        self.stopping = False

    def begin(self, client: KnownClient, now: float) -> int:
        """Hand the next waiting simulation to a client; return its id.

        Args:
            client: that serves it from now on.
            now: seconds on the coordinator's clock.
        """
        self.pace.begin(now, self._simulations.ended)
        number = self._simulations.take()
        attempt = self._simulations[number].attempt
        self._runs[number] = Run(now, attempt, client.worker, {client.id})
        self._assignments.begin(number, attempt, client.worker)
        self._events.write("assigned", simulation=number, attempt=attempt, pid=client.pid)
        return number

    def check_open(self) -> None:
        """Check that the study still wants data.

        Raises:
            Refused: it is stopping.
        """
        if self.stopping:
            raise Refused(Reason.STUDY_OVER, "the study is stopping and wants no more data")

    def current(self, header: Header) -> Simulation:
        """Return the simulation of a message.

        Args:
            header: of the message.

        Raises:
            Refused: there is no such simulation, or the message belongs to another attempt than the current one.
        """
        number = header.simulation
        if not 0 <= number < len(self._simulations):
            raise Refused(
                Reason.UNKNOWN_SIMULATION, f"simulation {number}: the study has 0 to {len(self._simulations) - 1}"
            )
        simulation = self._simulations[number]
        if header.attempt != simulation.attempt:
            raise Refused(
                Reason.STALE_ATTEMPT,
                f"attempt {header.attempt} of simulation {number}: attempt {simulation.attempt} is the current one",
            )
        return simulation

    def join(self, client: KnownClient, header: Header) -> None:
        """Let a solver that was started for one simulation join the worker that holds it.

        Args:
            client: the solver.
            header: of its NEXT.

        Raises:
            Refused: as `current`; the simulation does not run, or for a worker with another key; or the study is
                stopping.
        """
        self.check_open()
        simulation = self.current(header)
        if simulation.state != "running":
            raise Refused(
                Reason.UNKNOWN_SIMULATION,
                f"simulation {header.simulation} is {simulation.state}, expected running: a solver can only join a "
                "simulation that a "
                "worker holds",
            )
        run = self._runs[header.simulation]
        if run.worker != client.worker:
            raise Refused(
                Reason.UNKNOWN_SIMULATION,
                f"simulation {header.simulation} is assigned to a worker with another key: a solver uses the connect "
                "file of the worker that started it",
            )
        run.clients.add(client.id)

    def outdated(self, header: Header) -> bool:
        """Return whether a client may not go on with the attempt that its heartbeat names, but must abandon it."""
        simulation = self._simulations[header.simulation]
        # A finished one is not abandoned: its client is about to ask for the next.
        return simulation.attempt != header.attempt or simulation.state in ("waiting", "failed")

    def finish(self, client: KnownClient, header: Header, finish: Finish) -> None:
        """End a run, or a solver rank's part of it, as a client reports it.

        Args:
            client: that reports it.
            header: of FINISH.
            finish: its payload.
        """
        number, simulation = header.simulation, self._simulations[header.simulation]
        run = self._runs.get(number)
        if run is None:  # the stream's own FINISH came before the worker's word on the process
            if finish.outcome is Outcome.FAILED_FOR_GOOD and simulation.state == "waiting" and not self.stopping:
                self._give_up(number, finish.message, client.worker)
            elif finish.message:
                outcome = finish.outcome.name.lower()
                self._events.write_for(client.worker, "solver", simulation=number, outcome=outcome, text=finish.message)
        elif finish.outcome is Outcome.FINISHED:
            run.ranks_finished.add(header.rank)
            simulation.steps = max(simulation.steps, finish.steps)
            if len(run.ranks_finished) < finish.ranks:
                run.clients.discard(client.id)  # it has done its part and may end before the others
                client.holds = None
                return
            self._simulations.enter(number, "finished")
            self.same_failures.note_finished()
            self._release(number, finished=True)
            self._events.write("finished", simulation=number, attempt=header.attempt, steps=simulation.steps)
        elif finish.outcome is Outcome.RETURNED:
            self.give_back(number)
        elif finish.outcome is Outcome.EXITED:
            text = f"the solver ended without finishing its stream: does it load Penstock's client? {finish.message}"
            self.fail(number, text.strip())
        else:
            self.fail(number, finish.message, final=finish.outcome is Outcome.FAILED_FOR_GOOD)

    def give_back(self, number: int) -> None:
        """End a run without a result; its simulation is the next to be handed out, unless that has come too often."""
        simulation = self._simulations[number]
        returned = simulation.attempt - simulation.failures
        if returned > MAX_RETURNS and not self.stopping:
            self.fail(number, f"workers have handed it back {returned} times: their logs may say why")
            return
        self._simulations.give_back(number)
        self._release(number)
        self._events.write("returned", simulation=number, attempt=simulation.attempt)

    def fail(self, number: int, message: str, *, final: bool = False) -> None:
        """End a run that has failed; its simulation is tried again, or replaced, as far as the study allows.

        Args:
            number: the simulation's id.
            message: why it failed.
            final: it would fail again with the same parameters.
        """
        retries = 0 if final and not self._solver.retry_final else self._solver.retries
        again = self._simulations.fail(number, message, retries=retries, stopping=self.stopping)
        worker = self._runs[number].worker
        self._release(number)
        self._write_failed(number, message, worker, again=again)

    def _give_up(self, number: int, message: str, worker: str) -> None:
        """Give a simulation no further attempt after one that has ended: a worker knows that it would fail again."""
        if not self._solver.retry_final:
            self._simulations.give_up(number, message)
            self._write_failed(number, message, worker, again=False)

    def _write_failed(self, number: int, message: str, worker: str, *, again: bool) -> None:
        """Write that a simulation has failed, and replace it where it has failed for good."""
        attempt = self._simulations[number].attempt
        self._events.write_for(worker, "failed", simulation=number, attempt=attempt, again=again, message=message)
        if self._simulations[number].state == "failed":
            self.same_failures.note_failed(message)
        if (replacement := self._simulations.replacement(number)) is not None:
            self._events.write("redrawn", simulation=number, replacement=replacement)

    def lose(self, clients: Mapping[KnownClient, str], *, given_up: bool) -> None:
        """Forget clients that are gone; the runs that they served have failed.

        Args:
            clients: why each of them is gone.
            given_up: their processes may still be there.
        """
        for client, message in clients.items():  # all of them first, or one would be given what another held
            self._clients.remove(client, given_up=given_up)
            self._events.write_for(client.worker, "client_lost", pid=client.pid, host=client.host, message=message)
        held: dict[int, str] = {}  # a worker and the solver ranks that it started may be lost at once: one failure
        for client, message in clients.items():
            if client.holds is not None:
                held.setdefault(client.holds, f"{client}: {message}")
        for number, message in held.items():
            self.fail(number, message)

    def fail_overdue(self, now: float, wall_time: float) -> None:
        """Fail the runs that last much longer than they may.

        Args:
            now: seconds on the coordinator's clock.
            wall_time: seconds that one attempt may take.
        """
        limit = wall_time * WALL_TIME_MARGIN + WALL_TIME_MARGIN_SECONDS
        for number in [number for number, run in self._runs.items() if now - run.begun > limit]:
            self.fail(
                number,
                f"it ran longer than wall_time = {wall_time:g} s, and nobody stopped it: raise [solver] wall_time or "
                "make the simulation cheaper",
            )

    def delay(self, seconds: float) -> None:
        """Shift all deadlines: for so long this process itself was suspended."""
        for run in self._runs.values():
            run.begun += seconds
        if self.pace.begun is not None:
            self.pace.begun += seconds

    def _release(self, number: int, *, finished: bool = False) -> None:
        """Let go of a simulation that runs no more: its clients hold nothing."""
        run = self._runs.pop(number, None)
        if run is not None:
            self._assignments.end(number, run.attempt, run.worker, finished=finished)
        for key in run.clients if run is not None else ():
            client = self._clients.get(key)
            if client is not None and client.holds == number:
                client.holds = None


def checked_finish(header: Header, finish: Finish) -> Finish:
    """Check the figures in a FINISH, which count in the study's report.

    Args:
        header: of FINISH.
        finish: its payload.

    Returns:
        The payload with its text cut to MAX_TEXT characters, none of which steers a terminal.

    Raises:
        WireError: no client can have such figures.
    """
    if not (isfinite(finish.blocked_seconds) and finish.blocked_seconds >= 0):
        raise WireError(f"FINISH after {finish.blocked_seconds} s of waiting: expected a finite number, 0 or more")
    if not header.rank < finish.ranks <= MAX_RANKS:
        raise WireError(
            f"FINISH of solver rank {header.rank} of {finish.ranks}: expected 0 <= rank < ranks <= {MAX_RANKS}"
        )
    if finish.steps > MAX_STEPS:
        raise WireError(f"FINISH after {finish.steps} time steps: at most {MAX_STEPS} are allowed")
    return replace(finish, message=plain_text(finish.message[:MAX_TEXT]))
