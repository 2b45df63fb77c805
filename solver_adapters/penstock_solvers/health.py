"""The health of a worker: the worker itself answers at a socket, which the health check of a container asks."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from penstock_client.atomic_file import replacing

SOCKET_VARIABLE = "PENSTOCK_HEALTH_SOCKET"
ANSWER_SECONDS = 2.0  # for one who asks to take the answer

_log = logging.getLogger("penstock.health")


def answer_health(state: Callable[[], Mapping[str, object]]) -> None:
    """Answer whoever connects to the UNIX socket that PENSTOCK_HEALTH_SOCKET names, until this process ends.

    Each connection gets one JSON object and is closed. Without the variable nothing happens; where the socket cannot be
    made, a warning says so.

    Args:
        state: returns what to answer; a thread calls it.
    """
    name = os.environ.get(SOCKET_VARIABLE)
    if not name:
        return
    listener = socket.socket(socket.AF_UNIX)
    try:
        with replacing(Path(name)) as made:  # so that the name always leads to a socket that listens
            listener.bind(str(made))
            listener.listen()
    except OSError as error:
        listener.close()
        _log.warning("%s=%s: no socket can be made there (%s): nobody can ask", SOCKET_VARIABLE, name, error.strerror)
        return
    threading.Thread(target=_answer, args=(listener, state), name="penstock-health", daemon=True).start()


def _answer(listener: socket.socket, state: Callable[[], Mapping[str, object]]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(ANSWER_SECONDS)
                connection.sendall(json.dumps(state()).encode())
        except OSError as error:  # the one who asked has gone, or there are no more file descriptors
            _log.warning("a question about this worker's health was not answered: %s", error)
            threading.Event().wait(0.1)
