"""Runs one program and lets nothing of it outlive the process that asked for it.

Run as `python -I -S guard.py PROGRAM ARGUMENT...` in a session of its own; the standard library's core is all it imports,
so that it starts in a few milliseconds. Its standard input is a pipe whose other end only the asking process
holds: when that end closes, because that process wants the program stopped or has died in whatever way, everything in the
session is ended. A pipe serves better than PR_SET_PDEATHSIG, which the children of a shell script or of mpirun do not
inherit, and a process group is not enough, because mpirun gives each rank its own.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

GRACE = 2.0  # seconds that a program (mpirun, with ranks on other machines) has to end by itself after SIGTERM
CANNOT_START = 127  # as a shell reports a program that cannot be executed


def session_members(session: int) -> list[int]:
    """Process ids in a session, from /proc/PID/stat (proc(5)): after the name in brackets come state, parent, group, session."""
    members = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would triple the time this takes to start
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    fields = file.read().rpartition(b")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we looked
            if int(fields[3]) == session and fields[0] != b"Z":
                members.append(int(name))
    return members


def end_session(session: int, spare: int | None = None) -> None:
    """Kill every process of a session but `spare`; again until none is left, since a process may fork while we look."""
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
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the program would inherit that
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
            os._exit(CANNOT_START)
    return pid


def main(command: list[str]) -> int:
    """Run a command; return its exit code, or 128 + the number of the signal that ended it, as a shell does."""
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler must be there for the wake-up to be written
    pid = _start(command)
    ready, _, _ = select.select([0, ended], [], [])
    if ended not in ready:  # the asking process has closed its end, or is gone
        os.kill(pid, signal.SIGTERM)
        select.select([ended], [], [], GRACE)
    end_session(os.getsid(0), spare=os.getpid())
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
