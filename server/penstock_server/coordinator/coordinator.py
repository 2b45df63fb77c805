"""The coordinator's logic: which client serves which simulation, which clients are alive, and what has ended.

It has no sockets, no threads and no clock of its own. `Coordinator.handle` takes one message of one connection and
returns the messages to send; `Coordinator.tick` looks for silent clients. `penstock_server.network.RouterLoop` drives
both from a socket; the inline engine calls `handle` directly. What a message costs does not depend on how many
simulations the study has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from penstock_client.payloads import Welcome
from penstock_server.coordinator.announcements import Announcements
from penstock_server.coordinator.assignments import Assignments
from penstock_server.coordinator.clients import KnownClients
from penstock_server.coordinator.requests import Requests
from penstock_server.coordinator.runs import Runs
from penstock_server.coordinator.simulations import Point, SimulationCounts, Simulations
from penstock_server.network import Assignment, Frames, Message
from penstock_server.study import Schema, Study
from penstock_server.telemetry import ServerRun

SUSPENDED_SECONDS = 5.0  # without a message or a tick: this process itself was suspended, since ticks come every second


class Coordinator:
    """Hands out the plan's simulations and follows them to their end.

    One thread handles messages and ticks, the control thread. Other threads may read and call everything but `handle`
    and `tick`: a lock keeps them from seeing a message half done. Counts and flags are single values and are read
    without it.

    Args:
        plan: the simulations, by id.
        welcome: what every client is told.
        study: its [fields], [samples], [solver], [server] and [parameters].
        run: incarnation, events and metrics of this run of the server.
        on_schema: called once, when the fields' shapes are known, to make the trainer ranks ready. Returns True when
            they are; False when that has begun elsewhere, since it may take longer than clients wait for a heartbeat's
            answer: `configured` follows.
        on_assignment: called with every attempt that is assigned or has ended, to tell the trainer ranks. Returns True
            when they know; False when they are told elsewhere: `admitted` follows.
        schema: what a checkpoint has agreed on; None: to be agreed on with the first client.
        spares: points that take the place of training simulations which have used up their retries, one after the
            other, as simulations with new ids.
    """

    def __init__(
        self,
        plan: Sequence[Point],
        welcome: Welcome,
        study: Study,
        run: ServerRun,
        *,
        on_schema: Callable[[Schema], bool],
        on_assignment: Callable[[Assignment], bool] = lambda _assignment: True,
        schema: Schema | None = None,
        spares: Sequence[Point] = (),
    ) -> None:
        self._client_timeout, self._wall_time = study.server.client_timeout, study.solver.wall_time
        self._announcements = Announcements(study, welcome.parameters, run.events, on_schema, schema)
        self._simulations = Simulations(plan, spares, study.samples)
        self._clients = KnownClients()
        self._assignments = Assignments(on_assignment)
        self._runs = Runs(self._simulations, self._clients, run.events, study.solver, self._assignments)
        self._requests = Requests(
            self._simulations, self._clients, self._runs, self._announcements, self._assignments, welcome, run
        )
        self._lock = threading.RLock()

    @property
    def blocked_seconds(self) -> float:
        """Time that clients spent waiting for credit, as they report it; no more than has passed."""
        return self._requests.blocked_seconds

    @property
    def remaining_seconds(self) -> float:
        """Estimated time to the end of production; NaN before the first simulation has ended."""
        s = self._simulations
        return self._runs.pace.remaining_seconds(self._requests.now, s.ended, self.wanted_workers and s.wanted)

    @property
    def production_over(self) -> bool:
        """True when no time step will come any more."""
        return self._requests.production_over

    @property
    def wanted_workers(self) -> int:
        """Number of simulations that wait or run; more workers than that have nothing to do."""
        return 0 if self._runs.stopping else self._simulations.wanted

    @property
    def has_waiting(self) -> bool:
        """True when there is a simulation to hand out now."""
        return self._simulations.any_waiting and not self._runs.stopping

    def counts(self) -> SimulationCounts:
        """Return the number of simulations in each state."""
        return self._simulations.counts()

    @property
    def hopeless(self) -> str:
        """Why the study should stop: its first simulations have all failed for the same reason; "" otherwise."""
        return self._runs.same_failures.reason

    def given_up(self) -> tuple[tuple[str, int, str], ...]:
        """Return host, process id and key of given-up clients, which may be frozen and hold a worker's place."""
        return self._clients.stuck()

    def failures(self) -> dict[int, str]:
        """Return why each failed simulation failed."""
        with self._lock:
            return self._simulations.failures()

    def expected(self, arrived: Callable[[int], int]) -> int:
        """Return the number of training samples that the study must have; see `Simulations.expected`."""
        with self._lock:
            return self._simulations.expected(arrived)

    def state_dict(self) -> dict[str, Any]:
        """Return what a later incarnation must know, for a checkpoint."""
        with self._lock:
            return {**self._simulations.state_dict(), "static_arrived": self._announcements.state_dict()}

    def load_state_dict(
        self, state: Mapping[str, Any], arrived: Callable[[int], int], again: Sequence[int] = ()
    ) -> None:
        """Continue an earlier incarnation's work.

        A simulation that had finished stays so if all its samples had arrived by the checkpoint. One that was under way
        is handed out first, as a further attempt.

        Args:
            state: what `state_dict` returned.
            arrived: returns the number of a simulation's samples in the ledgers, or of a held-out one's time steps.
            again: simulations under way that continue where they were: handed out before all others, in this order and
                as the same attempt.
        """
        with self._lock:
            self._simulations.load_state_dict(state, arrived, again)
            self._announcements.load_state_dict(state["static_arrived"])
            if self._simulations.counts().finished:
                self._runs.same_failures.note_finished()

    def stop(self) -> list[Message]:
        """Hand out nothing more, and tell clients to abandon what they run.

        Returns:
            The messages to send.
        """
        with self._lock:
            self._runs.stopping = True
            return self._requests.serve_waiting()

    def worker_exited(self, host: str, pid: int, message: str) -> list[Message]:
        """Note that a worker process has ended; its simulation is handed out again.

        Args:
            host: its machine.
            pid: its process id.
            message: how it ended.

        Returns:
            The messages to send.
        """
        with self._lock:
            text = message or "its worker process ended"
            ended = self._clients.process_ended(host, pid)
            for client in (client for client in ended if client.may_leave and client.holds is None):
                self._clients.remove(client, given_up=False)
            self._runs.lose({c: text for c in ended if self._clients.get(c.id) is c}, given_up=False)
            return self._requests.serve_waiting()

    def withdrawn(self, workers: Collection[str]) -> list[Message]:
        """Give up the clients of keys that have been revoked; their simulations are handed out again.

        Args:
            workers: names of the keys.

        Returns:
            The messages to send.
        """
        with self._lock:
            self._runs.lose(dict.fromkeys(self._clients.of_workers(workers), "its key was revoked"), given_up=True)
            return self._requests.serve_waiting()

    def admitted(self, number: int) -> list[Message]:
        """Note that all trainer ranks know the first `number` assignments; clients that wait for it may begin.

        Returns:
            The messages to send.
        """
        with self._lock:
            self._assignments.set_known(number)
            return self._requests.serve_announced()

    def configured(self) -> list[Message]:
        """Note that the trainer ranks are ready for the fields; clients that have announced them may begin.

        Returns:
            The messages to send.
        """
        with self._lock:
            self._announcements.set_ready()
            return self._requests.serve_announced()

    def static_arrived(self, name: str) -> None:
        """Note that a static field is complete; later clients need not send it."""
        with self._lock:
            self._announcements.add_static(name)

    def tick(self, now: float) -> list[Message]:
        """Give up clients that are silent or serve another simulation than they hold; fail runs that take too long.

        Args:
            now: seconds on the monotonic clock.

        Returns:
            The messages to send.
        """
        with self._lock:
            self._advance(now)
            self._runs.lose(self._clients.find_lost(now, self._client_timeout), given_up=True)
            self._runs.fail_overdue(now, self._wall_time)
            return self._requests.serve_waiting()

    def handle(self, peer: bytes, frames: Frames, now: float = 0.0, worker: str = "") -> list[Message]:
        """Deal with one message. Never raises for what a client sent.

        Args:
            peer: routing id of the connection it came over.
            frames: header and payload.
            now: seconds on the monotonic clock.
            worker: name of the key with which the sender is connected.

        Returns:
            The messages to send.
        """
        with self._lock:
            self._advance(now)
            return self._requests.handle(peer, frames, worker)

    def _advance(self, now: float) -> None:
        """Advance the clock. If this process itself was suspended, shift all deadlines by the gap."""
        gap = now - self._requests.now
        self._requests.now = now
        if gap >= SUSPENDED_SECONDS:
            self._clients.delay(gap)
            self._runs.delay(gap)
        self._assignments.advance(now)
