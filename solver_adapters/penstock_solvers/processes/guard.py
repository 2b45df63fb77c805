"""Runs one program, and ends all its processes when the process that asked for it wants that or dies.

Run as `python -I -S guard.py PROGRAM ARGUMENT...` in a session of its own. Its standard input is a pipe whose other end
only the asking process holds: when that end closes, because that process wants the program stopped or has died, the
    guard kills
every process of the session. PR_SET_PDEATHSIG would not do, because the children of a shell script or of mpirun do not
inherit it; nor would a process group, because mpirun gives each rank its own.

The module imports only the core of the standard library, so that it starts in a few milliseconds, and no other module
of Penstock, which `-I -S` would not find. `penstock_server.engines.ray.leftovers` therefore has a loop of its own that
kills processes; it finds those of a dead Ray by the files that they hold open, because they belong to several sessions.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

GRACE = 2.0  # seconds that a program (mpirun, with ranks on other machines) gets to end after SIGTERM
CANNOT_START = 127  # the exit code of a shell for a program that cannot be executed


def session_members(session: int) -> list[int]:
    """List the processes of a session.

    Args:
        session: id of the session.

    Returns:
        Process ids, without zombies.
    """
    members = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would triple the time this takes to start
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    # proc(5): after the name in brackets come state, parent, process group and session.
                    fields = file.read().rpartition(b")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
            if int(fields[3]) == session and fields[0] != b"Z":
                members.append(int(name))
    return members


def end_session(session: int, spare: int | None = None) -> None:
    """Kill all processes of a session. Repeats until none is left, because a process may fork meanwhile.

    Args:
        session: id of the session.
        spare: process id to leave alive.
    """
    for _ in range(100):
        members = [pid for pid in session_members(session) if pid != spare]
        if not members:
            return
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.005)


def _start(command: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores SIGPIPE, and the program would inherit that
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
            os._exit(CANNOT_START)
    return pid


def main(command: list[str]) -> int:
    """Run a command until it ends or standard input is closed.

    Args:
        command: program and arguments.

    Returns:
        The program's exit code, or 128 plus the number of the signal that ended it, as in a shell.
    """
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up is written only if there is a handler
    pid = _start(command)
    ready, _, _ = select.select([0, ended], [], [])
    if ended not in ready:  # the asking process has closed its end or died
        os.kill(pid, signal.SIGTERM)
        select.select([ended], [], [], GRACE)
    end_session(os.getsid(0), spare=os.getpid())
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
