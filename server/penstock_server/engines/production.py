"""Python solvers advanced in this process, in turn: which simulation runs in which place, and how far each has come.

A resumed study continues as if it had never stopped because solvers are deterministic: each simulation that was under
way is advanced again from its first time step to where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock_client import Client, Solver, stream_solver
from penstock_client.transport import Transport
from penstock_server.coordinator import Coordinator
from penstock_server.ingest import Ingest
from penstock_server.study import Study
from penstock_server.telemetry import EventLog


@dataclass
class _Running:
    """A simulation in its place.

    Attributes:
        simulation: its id.
        attempt: number of the attempt, from 1.
        steps: time steps that have been dealt with.
        stream: sends one more time step at each `next`.
    """

    simulation: int
    attempt: int
    steps: int = 0
    stream: Iterator[int] = field(default_factory=lambda: iter(()))


class Production:
    """Advances `concurrency` simulations in turn, one time step each.

    Args:
        study: the study.
        solver: the Python solver.
        events: events.jsonl of the run directory.
        state: what `state_dict` returned, to continue from there; None for a new study.

    Attributes:
        putting: True while a sample of the current time step waits for room in the buffer; set by the engine.
    """

    def __init__(self, study: Study, solver: Solver, events: EventLog, state: Mapping[str, Any] | None = None) -> None:
        self._study, self._solver, self._events = study, solver, events
        self._places: list[_Running | None] = [None] * study.solver.concurrency
        self._turn = 0
        self.putting = False
        self._clients: list[Client] = []
        if state is not None:
            self._places = [None if place is None else _Running(**place) for place in state["places"]]
            self._turn, self.putting = state["turn"], state["putting"]
            self._resize(study.solver.concurrency)

    def _resize(self, concurrency: int) -> None:
        """Have so many places, after a change of [solver] concurrency.

        The place whose turn it is comes first, since its sample may wait for room. Simulations that lose their places
        are handed out again.
        """
        if concurrency == len(self._places):
            return
        places = self._places[self._turn :] + self._places[: self._turn]
        self._places = (places + [None] * concurrency)[:concurrency]
        self._turn = 0

    @property
    def under_way(self) -> list[int]:
        """The simulations that run, in the order of their places."""
        return [running.simulation for running in self._places if running is not None]

    def announce_again(self, ingest: Ingest) -> None:
        """Tell ingest which time steps will come a second time."""
        for place, running in enumerate(self._places):
            if running is not None:
                waiting = self.putting and place == self._turn
                ingest.take_up(running.simulation, running.attempt, running.steps, counted=running.steps + waiting)

    def begin(self, transport: Transport, control: str, incarnation: int, over: Callable[[], object]) -> None:
        """Connect a client for each place, and bring what was under way to where it stood; `over` ends that early."""
        self._clients = [Client(transport=transport, control=control, incarnation=incarnation) for _ in self._places]
        under_way = [(place, running) for place, running in enumerate(self._places) if running is not None]
        for (
            place,
            running,
        ) in under_way:  # all of them first, so that the coordinator has them running whenever `over` says so
            given = self._assigned(place)
            assert (given.simulation, given.attempt) == (running.simulation, running.attempt)
            running.stream = given.stream
        for place, running in under_way:
            for number in range(running.steps):
                if over():
                    return
                if next(running.stream, None) is None:
                    # It has told the coordinator how it ended this time, and goes the way of any other that ends so.
                    self._events.write(
                        "not_deterministic", simulation=running.simulation, steps=number, before=running.steps
                    )
                    self._places[place] = None
                    break

    def advance(self, coordinator: Coordinator) -> bool:
        """One turn: a time step more of one simulation. False when none is left."""
        place = self._turn
        if self._places[place] is None and coordinator.has_waiting:
            self._places[place] = self._assigned(place)
        running = self._places[place]
        if running is not None:
            if next(running.stream, None) is None:
                self._places[place] = None
            else:
                running.steps += 1
        self._turn = (place + 1) % len(self._places)
        return bool(self.under_way) or coordinator.has_waiting

    def close(self) -> None:
        """Hand back what is under way."""
        for running in self._places:
            if running is not None and hasattr(running.stream, "close"):
                running.stream.close()
        for client in self._clients:
            client.close()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, in the middle of a turn as well as between two."""
        places = [
            None
            if running is None
            else {"simulation": running.simulation, "attempt": running.attempt, "steps": running.steps}
            for running in self._places
        ]
        return {"places": places, "turn": self._turn, "putting": self.putting}

    def _assigned(self, place: int) -> _Running:
        simulation = self._clients[place].next_simulation()
        assert simulation is not None
        stream = stream_solver(self._solver, simulation, tuple(self._study.fields), self._study.solver.every)
        return _Running(simulation.id, simulation.attempt, stream=stream)
