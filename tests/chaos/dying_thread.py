"""`penstock` whose server loses the thread of one of its sockets, as by an error that no test has found yet.

    python tests/chaos/dying_thread.py coordinator|rank TRIGGER PENSTOCK_ARGUMENT...

The thread raises an OSError once the file TRIGGER exists. Ray copies the changed classes of this script to its actors.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from penstock.main import main
from penstock_server.engines.ray import server_processes
from penstock_server.engines.ray.coordinator_actor import CoordinatorActor
from penstock_server.engines.ray.rank_actor import RankActor

REASON = "the socket's thread was made to fail"


def dying(actor: type, trigger: Path, loop_of: Any) -> type:
    """The class of an actor whose socket's thread dies; loop_of: finds the RouterLoop of an object of it."""

    def start(self: Any, *arguments: Any) -> Any:
        started = actor.start(self, *arguments)  # type: ignore[attr-defined]

        def fail() -> Any:
            raise OSError(REASON)

        def watch() -> None:
            while not trigger.exists():
                time.sleep(0.05)
            loop_of(self).post(fail)

        threading.Thread(target=watch, daemon=True).start()
        return started

    return type(actor.__name__, (actor,), {"start": start, "__module__": "__main__"})


if __name__ == "__main__":
    which, trigger = sys.argv[1], Path(sys.argv[2])
    del sys.argv[1:3]
    if which == "coordinator":
        server_processes.CoordinatorActor = dying(CoordinatorActor, trigger, lambda self: self._control._loop)  # type: ignore[misc]
    else:
        server_processes.RankActor = dying(RankActor, trigger, lambda self: self._loop)  # type: ignore[misc]
    main()
