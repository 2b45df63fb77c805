"""What the engine needs of a Ray, whether it is one of its own (`local_ray`) or one that runs already (`joined_ray`)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from penstock_client.errors import PenstockError
from penstock_server.engines.ray import leftovers
from penstock_server.engines.ray.processes import Processes

START_TIMEOUT = 120.0


class EngineError(PenstockError):
    """The server could not be started."""


class RayFailed(EngineError):
    """Ray itself could not be started or reached: it may work another time."""


class Cluster(Protocol):
    """A Ray with a bundle of resources for the coordinator and one for each trainer rank.

    group: the placement group of these bundles, from `start` on. actor_options: for every actor in it. gpus_per_rank: 0 or 1.
    """

    group: Any
    actor_options: dict[str, Any]
    gpus_per_rank: int

    def start(self) -> None:
        """Be ready for actors; again after `stop`.

        Raises:
            RayFailed: it cannot be, this time. EngineError: it could not be another time either.
        """

    def died(self) -> str:
        """What has died of Ray itself, as far as that can be known; "" while all is well."""

    def watch(self, pids: Mapping[str, int], actors: Mapping[str, Any]) -> Processes:
        """The processes of actors that have been started, by the actors' names."""

    def stop(self) -> None:
        """Leave nothing of this study on it, whatever state it is in."""


def end_leftovers(directory: Path) -> None:
    """End what an earlier Ray of our own has left of the study in `directory`; EngineError where that cannot be done."""
    if left := leftovers.clean_up(directory):
        raise EngineError(
            f"{directory}: processes {', '.join(map(str, left))} of the server before still run and cannot be ended: "
            "expected none, since they may write into the run directory; end them, then try again"
        )


@contextmanager
def own_signal_handlers() -> Iterator[None]:
    """Ray installs handlers of its own; afterwards ours are back."""
    main = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
