"""What the engine needs of a Ray, whether it started it itself (`local_ray`) or joined a running one (`joined_ray`)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from penstock_client.errors import PenstockError
from penstock_server.engines.ray import leftovers
from penstock_server.engines.ray.processes import ActorProcesses


class EngineError(PenstockError):
    """The server could not be started."""


class RayFailed(EngineError):
    """Ray itself could not be started or reached: another attempt may succeed."""


class DiskFull(EngineError):
    """A file could not be written because its disk is full: another attempt may succeed when there is room."""


class RayCluster(Protocol):
    """A running Ray with a bundle of resources for the coordinator and one for each trainer rank.

    Attributes:
        group: the placement group of these bundles.
        actor_options: Ray options of every actor in it.
        gpus_per_rank: 0 or 1.
    """

    group: Any
    actor_options: dict[str, Any]
    gpus_per_rank: int

    def died(self) -> str:
        """Return which process of Ray itself has died, as far as that can be known; "" while all is well."""

    def watch(self, pids: Mapping[str, int], actors: Mapping[str, Any]) -> ActorProcesses:
        """Watch the processes of actors.

        Args:
            pids: their process ids, by the actors' names.
            actors: their handles, by the same names.
        """

    def stop(self) -> None:
        """Leave nothing of this study on it, whatever state it is in."""


def end_leftovers(directory: Path, kill_timeout: float) -> None:
    """End what an earlier Ray of ours has left of the study in a run directory.

    Args:
        directory: the run directory.
        kill_timeout: seconds for its processes to end.

    Raises:
        EngineError: a process cannot be ended.
    """
    if left := leftovers.clean_up(directory, kill_timeout):
        raise EngineError(
            f"{directory}: processes {', '.join(map(str, left))} of an earlier server still run and cannot be ended: "
            "expected none, since they may write into the run directory; end them, then try again"
        )


@contextmanager
def own_signal_handlers() -> Iterator[None]:
    """Put our signal handlers back afterwards, since Ray installs its own."""
    main = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
