"""The state of each simulation of a study: waiting, running, finished or failed; and what a checkpoint keeps of it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock_server.study import SamplesSection, windows_in


@dataclass(frozen=True)
class SimulationCounts:
    """Number of simulations by state; those that wait are the rest of `requested`.

    Attributes:
        requested: all of them, replaced ones not counted.
        finished: those that have ended well.
        failed: those that have failed for good and were not replaced.
        running: those that a client serves now.
        restarted: further attempts, of all simulations together.
        redrawn: failed ones that another point of the parameter space has replaced.
    """

    requested: int = 0
    finished: int = 0
    failed: int = 0
    running: int = 0
    restarted: int = 0
    redrawn: int = 0


State = Literal["waiting", "running", "finished", "failed"]


@dataclass(frozen=True, slots=True)
class Point:
    """One simulation of the study's plan.

    Attributes:
        parameters: its point in the parameter space, seeds last.
        validation: True when it is held out.
    """

    parameters: tuple[float, ...]
    validation: bool


@dataclass(slots=True)
class Simulation:
    """The state of one simulation.

    Attributes:
        state: changed by `Simulations.enter` alone.
        attempt: number of the current or last attempt; 0 before the first.
        failures: number of attempts that have failed.
        steps: number of time steps, once it has finished.
        message: of its last failure.
    """

    state: State = "waiting"
    attempt: int = 0
    failures: int = 0
    steps: int = 0
    message: str = ""


class Simulations:
    """All simulations by id. What a call costs depends on how many there are only where it concerns all of them.

    Args:
        plan: the simulations, by id.
        spares: points that take the place of training simulations which have failed for good, one after the other, as
            simulations with new ids.
        samples: the study's [samples].
    """

    def __init__(self, plan: Sequence[Point], spares: Sequence[Point], samples: SamplesSection) -> None:
        self._plan, self._spares, self._samples = list(plan), spares, samples
        self._all = [Simulation() for _ in plan]
        self._waiting = deque(self._in_turn())
        self._states: Counter[str] = Counter(waiting=len(self._plan))
        self._restarted = 0
        self._redrawn: list[int] = []  # failed simulations that a spare point has replaced

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> Simulation:
        return self._all[number]

    def point(self, number: int) -> Point:
        """Return the point of a simulation."""
        return self._plan[number]

    @property
    def ended(self) -> int:
        """Number of simulations that have finished, or failed for good."""
        return self._states["finished"] + self._states["failed"]

    @property
    def all_ended(self) -> bool:
        """True when every simulation has finished or failed."""
        return self.ended == len(self._all)

    @property
    def wanted(self) -> int:
        """Number of simulations that wait or run."""
        return self._states["waiting"] + self._states["running"]

    @property
    def any_waiting(self) -> bool:
        """True when a simulation waits to be handed out."""
        return bool(self._waiting)

    def counts(self) -> SimulationCounts:
        """Return the number of simulations in each state."""
        redrawn = len(self._redrawn)
        return SimulationCounts(
            requested=len(self._all) - redrawn,
            finished=self._states["finished"],
            failed=self._states["failed"] - redrawn,
            running=self._states["running"],
            restarted=self._restarted,
            redrawn=redrawn,
        )

    def failures(self) -> dict[int, str]:
        """Return why each failed simulation failed."""
        return {i: s.message for i, s in enumerate(self._all) if s.state == "failed"}

    def expected(self, arrived: Callable[[int], int]) -> int:
        """Return the number of training samples that the study must have.

        These are all samples of each finished simulation, and what has arrived of any other.

        Args:
            arrived: returns how many samples of a simulation are in the trainer ranks' ledgers.
        """
        return sum(
            windows_in(s.steps, self._samples.window, self._samples.stride) if s.state == "finished" else arrived(i)
            for i, s in enumerate(self._all)
            if not self._plan[i].validation
        )

    def take(self) -> int:
        """Begin another attempt of the next waiting simulation; return its id.

        Raises:
            IndexError: none waits.
        """
        number = self._waiting.popleft()
        self.enter(number, "running")
        self._all[number].attempt += 1
        self._restarted += self._all[number].attempt > 1
        return number

    def give_back(self, number: int) -> None:
        """Let a simulation wait again, as the next to be handed out."""
        self.enter(number, "waiting")
        self._waiting.appendleft(number)

    def fail(self, number: int, message: str, *, retries: int, stopping: bool) -> bool:
        """Note that an attempt has failed.

        Args:
            number: the simulation's id.
            message: why it failed.
            retries: further attempts that a simulation has.
            stopping: the study stops; the simulation waits for a later incarnation.

        Returns:
            Whether this incarnation will try it again.
        """
        simulation = self._all[number]
        simulation.failures += 1
        simulation.message = message
        again = simulation.failures <= retries and not stopping
        self.enter(number, "waiting" if again or stopping else "failed")
        if again:
            self._waiting.append(number)
        return again

    def give_up(self, number: int, message: str) -> None:
        """Let a simulation that waits for another attempt fail for good.

        Args:
            number: the simulation's id.
            message: why no attempt can succeed.
        """
        self._waiting.remove(number)
        self._all[number].message = message
        self.enter(number, "failed")

    def replacement(self, number: int) -> int | None:
        """Replace a simulation that has failed for good by a spare point; return its id, None if there is none."""
        if (
            self._all[number].state != "failed"
            or self._plan[number].validation
            or len(self._redrawn) >= len(self._spares)
        ):
            return None
        replacement = self._redraw(number)
        self._waiting.append(replacement)
        return replacement

    def enter(self, number: int, state: State) -> None:
        """Change the state of a simulation."""
        simulation = self._all[number]
        self._states[simulation.state] -= 1
        self._states[state] += 1
        simulation.state = state

    def state_dict(self) -> dict[str, Any]:
        """Return what a later incarnation must know, for a checkpoint."""
        numbered = list(enumerate(self._all))
        return {
            "steps": {str(i): s.steps for i, s in numbered if s.state == "finished"},
            "attempts": {str(i): s.attempt for i, s in numbered if s.attempt},
            "failures": {str(i): [s.failures, s.message] for i, s in numbered if s.failures},
            "failed": [i for i, s in numbered if s.state == "failed"],
            "redrawn": list(self._redrawn),
            "waiting": list(self._waiting),
            "restarted": self._restarted,
        }

    def load_state_dict(self, state: Mapping[str, Any], arrived: Callable[[int], int], again: Sequence[int]) -> None:
        """See `Coordinator.load_state_dict`."""
        for number in state["redrawn"]:
            self._redraw(number)
        for number, attempt in state["attempts"].items():
            self._all[int(number)].attempt = attempt - (int(number) in again)
        for number, (failures, message) in state["failures"].items():
            self._all[int(number)].failures, self._all[int(number)].message = failures, message
        for number in state["failed"]:
            self.enter(number, "failed")
        for number, steps in state["steps"].items():
            i = int(number)
            window, stride = (1, 1) if self._plan[i].validation else (self._samples.window, self._samples.stride)
            if arrived(i) >= windows_in(steps, window, stride):
                self.enter(i, "finished")
                self._all[i].steps = steps
        self._restarted = state["restarted"] - sum(self._all[i].attempt > 0 for i in again)
        later = dict.fromkeys(state["waiting"])
        under_way = [i for i in self._in_turn() if i not in later]
        order = dict.fromkeys([*again, *under_way, *later])
        self._waiting = deque(i for i in order if self._all[i].state == "waiting")

    def _in_turn(self) -> list[int]:
        """Return all ids, the held-out ones first, so that there is something to validate on from the start."""
        return sorted(range(len(self._plan)), key=lambda i: (not self._plan[i].validation, i))

    def _redraw(self, number: int) -> int:
        """Add a simulation in place of one that has failed for good; return its id."""
        self._plan.append(self._spares[len(self._redrawn)])
        self._all.append(Simulation())
        self._states["waiting"] += 1
        self._redrawn.append(number)
        return len(self._plan) - 1
