"""Another user of this machine, without privileges, as root can make one: a process with an unused numeric id."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import pytest

STRANGER, VICTIM = 54_321, 54_322
"""Numeric ids of two users that no one has."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run processes as two other users")


def as_user(user: int, act: Callable[[], object]) -> str:
    """Call a function in a child process that has the rights of another user.

    The child is a copy of this process, since another user need not be able to read this environment's packages. So
    what the function needs must be imported already.

    Args:
        user: numeric id.
        act: what to call.

    Returns:
        What the function returned, as text; where it raised an error, the error's type and text.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            said = str(act())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return said


def command_as(user: int, *command: str) -> list[str]:
    """A command line that runs another one with the rights of another user."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]


def with_readable_python(*command: str) -> list[str]:
    """A command line that runs another one where every user can run this Python and this repository.

    Where these lie below a folder that is closed to others, such as /root, the command gets mounts of its own: in place
    of that folder, one that holds nothing but them.
    """
    needed = {Path(path).resolve() for path in (sys.base_prefix, sys.prefix, Path(__file__).parents[1])}
    closed: dict[Path, list[Path]] = {}
    for path in needed:
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & 0o001:
                closed.setdefault(parent, []).append(path)
                break
    if not closed:
        return list(command)
    steps = ["set -e"]
    for folder, paths in closed.items():
        # Bind mounts elsewhere keep what is needed within reach while the folder is covered.
        steps.append("aside=$(mktemp -d) && mount -t tmpfs -o mode=755 aside $aside")
        steps += [f"mkdir $aside/{n} && mount --rbind {quote(str(p))} $aside/{n}" for n, p in enumerate(paths)]
        steps.append(f"mount -t tmpfs -o mode=755 others {quote(str(folder))}")
        steps += [f"mkdir -p {quote(str(p))} && mount --rbind $aside/{n} {quote(str(p))}" for n, p in enumerate(paths)]
        steps.append("umount --lazy $aside && rmdir $aside")
    return ["unshare", "--mount", "sh", "-c", "; ".join([*steps, 'exec "$@"']), "sh", *command]
