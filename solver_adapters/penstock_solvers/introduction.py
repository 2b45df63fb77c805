"""Who a worker is, as the first line of its log says it: a launcher on another machine knows its workers by that."""

from __future__ import annotations

import os
import re
import socket

_LINE = re.compile(r"^penstock worker: process (\d+) on (\S+)$", re.MULTILINE)


def introduction() -> str:
    """This process and its machine, as its HELLO to the server names them."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def introduced(log: str) -> list[tuple[str, int]]:
    """Host and process id of every worker that has written its introduction into a log."""
    return [(host, int(pid)) for pid, host in _LINE.findall(log)]
