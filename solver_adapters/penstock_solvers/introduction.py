"""The first line of a worker's log: it names process and machine, by which a launcher recognises its workers."""

from __future__ import annotations

import os
import re
import socket

_LINE = re.compile(r"^penstock worker: process (\d+) on (\S+)$", re.MULTILINE)


def introduction() -> str:
    """Return the text that names this process and its machine, as in its HELLO to the server."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def introduced(log: str) -> list[tuple[str, int]]:
    """Find the workers that have written a log.

    Args:
        log: text of the log.

    Returns:
        Name of the machine and process id of each worker.
    """
    return [(host, int(pid)) for pid, host in _LINE.findall(log)]
