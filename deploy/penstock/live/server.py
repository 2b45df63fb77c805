"""The server of the page: its address, its log, its life."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.server.server import Server
from tornado.ioloop import IOLoop

from penstock.live.access import LOCAL, Access
from penstock.live.page import page_of
from penstock.live.run_reader import RunReader
from penstock.run import Jobs
from penstock.study import STUDY, is_file
from penstock_client import PenstockError
from penstock_server.telemetry import LOGS, log_this_process

FIRST_PORT, PORTS = 5006, 50
NICENESS = 5  # training and solvers go first
MOST_MESSAGE = 2**20  # bytes from a browser, which only tells what is chosen


def serve_page(
    directory: Path,
    *,
    host: str,
    port: int | None,
    token: str | None,
    jobs: Callable[[Path], Jobs | None],
    say: Callable[[str, int], None],
) -> None:
    """Serve the page of a run directory until SIGINT or SIGTERM.

    Args:
        directory: the run directory; it may be empty.
        host: address to listen on.
        port: None for the first free one from 5006 on, 0 for any free one.
        token: that browsers must have; None for everyone on this machine.
        jobs: reads the jobs of a study that was submitted to a scheduler.
        say: gets the page's address and its port, when it answers.

    Raises:
        PenstockError: the address cannot be listened on.
    """
    _log_to(directory)
    with suppress(OSError):
        os.nice(NICENESS)
    loop = IOLoop.current()
    server = _listen(Application(FunctionHandler(page_of(directory, RunReader(directory, jobs)))), host, port, token)
    server.start()
    say(address(host, server.port or 0, token), server.port or 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: loop.add_callback_from_signal(loop.stop))
    loop.start()
    server.stop()


def address(host: str, port: int, token: str | None) -> str:
    """Return the address of the page for a browser.

    Args:
        host: that it listens on.
        port: likewise.
        token: that the browser must have, or None.
    """
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + ("" if token is None else f"?{urlencode({'token': token})}")


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host in LOCAL


def _listen(application: Application, host: str, port: int | None, token: str | None) -> Server:
    ports = range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else (port,)
    for number in ports:
        try:
            return Server(
                {"/": application},
                address=host,
                port=number,
                auth_provider=Access(token),
                allow_websocket_origin=["*"],  # Access compares Origin with Host: a tunnel may have any port
                websocket_max_message_size=MOST_MESSAGE,
            )
        except OSError as error:
            problem = error
    if port is None:
        raise PenstockError(f"no port from {ports[0]} to {ports[-1]} of {host} is free; give one with --port")
    raise PenstockError(
        f"port {port} of {host} cannot be listened on ({problem.strerror}): expected a free port of this machine; "
        "choose another --port, or leave it out"
    )


def _log_to(directory: Path) -> None:
    """Log to the run directory; where there is none yet, or it cannot be written, errors of the page are not kept."""
    logging.getLogger("bokeh").setLevel(logging.ERROR)
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)  # refused requests; tornado says nothing else
    logs = directory / LOGS
    if is_file(directory / STUDY) and os.access(logs if logs.is_dir() else directory, os.W_OK):
        log_this_process(directory, "live")
    else:
        logging.getLogger().addHandler(logging.NullHandler())
