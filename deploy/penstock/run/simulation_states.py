"""The state of each simulation, from the lines of events.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The state that an event brings its simulation into.
_STATES = {"assigned": "running", "finished": "finished", "returned": "waiting", "failed": "failed"}


class SimulationStates:
    """Follows the events of a study.

    Attributes:
        states: "running", "finished", "waiting" or "failed" by simulation id; a simulation without an event is missing.
    """

    def __init__(self) -> None:
        self.states: dict[int, str] = {}

    def note(self, event: Mapping[str, Any]) -> bool:
        """Take a line of events.jsonl.

        Args:
            event: the object of the line.

        Returns:
            Whether it changes a state.
        """
        kind = event.get("event")
        if kind == "started":  # a new incarnation hands out again what ran in the one before
            before, self.states = self.states, self.without_running()
            return before != self.states
        if "simulation" not in event or kind not in _STATES:
            return False
        again = kind == "failed" and event.get("again")
        self.states[event["simulation"]] = "waiting" if again else _STATES[kind]
        return True

    def without_running(self) -> dict[int, str]:
        """Return the states in a study that no process runs: what was running waits to be handed out again."""
        return {number: "waiting" if state == "running" else state for number, state in self.states.items()}
