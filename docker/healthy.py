"""Ask the process of this container whether it is well: exit code 0 if so. What it answers goes to `docker inspect`.

The server is asked at the metrics endpoints of its coordinator and its trainer ranks, a worker at its health socket.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

SECONDS = 3.0  # for an answer


def server_problems() -> Iterator[str]:
    """Processes of the server that do not answer."""
    targets = json.loads(Path("/runs", os.environ["STUDY"], "targets.json").read_text())
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the site has set
    for address in (address for group in targets for address in group["targets"]):
        with direct.open(f"http://{address}/metrics", timeout=SECONDS) as answer:
            if b"\npenstock_" not in answer.read():
                yield f"{address} has no metrics of Penstock"


def worker_problems() -> Iterator[str]:
    """What the worker says, where it is not well."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(os.environ["PENSTOCK_HEALTH_SOCKET"])
        answer = connection.makefile().read()
    print(answer)
    if not json.loads(answer)["well"]:
        yield "no server answers this worker"


def main() -> int:
    """Return the exit code."""
    try:
        problems = list({"server": server_problems, "worker": worker_problems}[sys.argv[1]]())
    except (OSError, ValueError, KeyError) as error:
        problems = [f"no answer: {type(error).__name__}: {error}"]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
