"""Another user of this machine, without privileges, as root can make one: a process with an unused numeric id."""

from __future__ import annotations

import os
from collections.abc import Callable

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
