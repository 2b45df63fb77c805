"""Many clients in one process, for tests of a server that has a thousand of them: `python crowd.py CONNECT CLIENTS STEPS POINTS`.

Every client is a real one, with connections and a heartbeat of its own, on a thread of its own. The process goes through three stages and
says so on standard output, one JSON object a line; a line on standard input lets it go on to the next:

    ready     the threads are there, none has connected yet
    holding   every client has said HELLO and been given a simulation; "simulations": [id, ...]
    done      each has streamed its simulation, finished it and been told that there are no more; "errors": [text, ...]
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import numpy as np

from penstock_client import Client


class Crowd:
    """So many clients of the server of a connect.json, each for one simulation of `steps` time steps of `points` values."""

    def __init__(self, connect: str, clients: int, steps: int, points: int) -> None:
        self._connect, self._steps, self._points = connect, steps, points
        self._stages = threading.Barrier(clients + 1)
        self.held: list[int] = []
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._serve) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def go_on(self) -> None:
        """Let all clients go on together, once all have come so far."""
        self._stages.wait()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        self._stages.wait()
        try:
            with Client(self._connect, timeout=60) as client:
                simulation = client.next_simulation()
                assert simulation is not None, "there is none left"
                self.held.append(simulation.id)
                self._stages.wait()
                self._stages.wait()
                for step in range(self._steps):
                    simulation.send(step, u=np.full(self._points, step, np.float32))
                simulation.finish()
                assert client.next_simulation() is None, "there is one more"
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            self._stages.abort()


def say(stage: str, **more: Any) -> None:
    print(json.dumps({"stage": stage, **more}), flush=True)


def main() -> None:
    connect, *numbers = sys.argv[1:]
    crowd = Crowd(connect, *map(int, numbers))
    say("ready")
    sys.stdin.readline()
    try:
        crowd.go_on()  # to connect
        crowd.go_on()  # all of them hold a simulation
        say("holding", simulations=crowd.held)
        sys.stdin.readline()
        crowd.go_on()  # to stream
    except threading.BrokenBarrierError:
        pass
    crowd.join()
    say("done", errors=crowd.errors)


if __name__ == "__main__":
    main()
