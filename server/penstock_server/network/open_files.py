"""The limit of open files, of which each connection takes one; many systems give a process 1,024 to begin with."""

from __future__ import annotations

import resource

WANTED = 2**16  # more than three connections for each of `ingest.streams.MAX_CONNECTIONS` clients


def allow_open_files(wanted: int = WANTED) -> int:
    """Raise this process's soft limit of open files (`ulimit -n`) as far as the hard limit allows; never lower it.

    Args:
        wanted: the limit to reach, number of file descriptors.

    Returns:
        The limit that holds now. Processes started from here on inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if limit <= soft:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
