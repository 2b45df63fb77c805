"""Room for the connections of many clients: each takes a file descriptor, and systems commonly give a process 1,024 to begin with."""

from __future__ import annotations

import resource

WANTED = (
    2**16
)  # three connections of more clients than a server is made for (`ingest.streams.MAX_CONNECTIONS`), and then some


def allow_open_files(wanted: int = WANTED) -> int:
    """Raise this process's soft limit of open files (`ulimit -n`) to `wanted`, or as far as the hard limit allows; never lower it.

    Returns the limit that holds now. Processes started from here on inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if limit <= soft:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
