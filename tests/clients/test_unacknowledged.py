"""Every TCP connection of the data path ends when bytes stay unacknowledged for a minute."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from pathlib import Path

import pytest
from stream_program import U

from live_server import live_server, worker
from waiting import wait_for

PIDFD_GETFD = 438  # on every architecture of Linux


def time_outs(process: int) -> set[tuple[int, int, int]]:
    """Of each TCP connection of a process: its two ports and how many milliseconds bytes may stay unacknowledged."""
    found = set()
    pidfd = os.pidfd_open(process)
    try:
        for path in Path(f"/proc/{process}/fd").iterdir():
            fd = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, int(path.name), 0)
            if fd < 0:
                continue
            try:
                with socket.socket(fileno=fd) as copy:
                    if copy.family == socket.AF_INET and copy.type == socket.SOCK_STREAM:
                        ports = copy.getsockname()[1], copy.getpeername()[1]
                        found.add((*ports, copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)))
            except OSError:  # not a socket, or one that listens
                continue
    finally:
        os.close(pidfd)
    return found


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux 5.6")
def test_all_connections_have_a_time_out(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        server_port = int(server.engine._sockets.data_endpoint.rpartition(":")[2])
        process = server.start(
            [programs / "stream", "100000", "4", "pause_ms=10"], simulation, stdout=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: server.engine.status().received)
            theirs = {out for _, peer, out in time_outs(process.pid) if peer == server_port}
            ours = time_outs(os.getpid())  # the server's and the Python client's
        finally:
            process.kill()
            process.wait()
        assert theirs == {60_000}
        assert {out for port, _, out in ours if port == server_port} == {60_000}
        assert {out for _, peer, out in ours if peer == server_port} == {60_000}
        simulation.fail("the test ends")
