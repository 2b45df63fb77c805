"""The process of the service: its socket, its signals, and uvicorn."""

from __future__ import annotations

import gc
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from penstock_client import PenstockError

MOST_CONNECTIONS = 256
"""Connections at one time; a further one is answered 503."""
GRACE = 10
"""Seconds that requests under way get after SIGTERM or Ctrl-C."""


class AddressError(PenstockError):
    """The address cannot be listened on."""


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of the service.

    Args:
        host: name or IP address of this machine.
        port: 0 for a free one.

    Returns:
        The socket; connections wait from now on.

    Raises:
        AddressError: the port is taken, or the address is not one of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=MOST_CONNECTIONS)
    except OSError as error:
        raise AddressError(
            f"--host {host} --port {port} cannot be listened on: {error.strerror or error}; "
            "expected an address of this machine and a free port, such as --port 0"
        ) from error


def make_server(app: FastAPI) -> uvicorn.Server:
    """Make the HTTP server of a service.

    Args:
        app: the service.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,  # to the root logger, as everything else
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=GRACE,
        )
    )


def run_service(app: FastAPI, listening: socket.socket) -> None:
    """Answer requests until SIGTERM or Ctrl-C; requests under way are answered first.

    Args:
        app: the service.
        listening: its socket, from `listen`.
    """
    # uvicorn repeats the signal to these handlers once it has ended: both are the usual end of a service.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    # Nested lists of numbers make Python collect garbage often; what is loaded by now, such as torch, is no garbage.
    gc.collect()
    gc.freeze()
    make_server(app).run(sockets=[listening])


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
