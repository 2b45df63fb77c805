"""`penstock serve`: the trained surrogate over HTTP."""

from __future__ import annotations

import ipaddress
import os
from typing import Annotated

import typer

from penstock.cli.common import RunDirectory
from penstock_client import PenstockError

TOKEN = "PENSTOCK_SERVICE_TOKEN"


def serve(
    directory: RunDirectory,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Another than 127.0.0.1 needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
) -> None:
    """Answer predictions of the trained surrogate over HTTP until Ctrl-C or SIGTERM.

    POST /predict, GET /card, /health, /metrics and /openapi.json. If the environment variable PENSTOCK_SERVICE_TOKEN is
    set, requests must carry it as "Authorization: Bearer TOKEN".
    """
    token = os.environ.get(TOKEN)
    if not token and not _loopback(host):
        raise PenstockError(
            f"--host {host}: everyone who reaches this address could ask; set the environment variable {TOKEN} to a "
            "secret of your choice, or leave --host out"
        )
    from penstock.study import make_openmp_wait_passively

    make_openmp_wait_passively()  # before torch is imported
    from penstock.service import listen, make_app, run_service
    from penstock_server.surrogate import Surrogate
    from penstock_server.telemetry import ProcessLog

    surrogate = Surrogate.load(directory)
    app = make_app(surrogate, token or None)
    listening = listen(host, port)
    log = ProcessLog(directory, "service") if (directory / "logs").is_dir() else None
    address, number = listening.getsockname()[:2]
    where = f"[{address}]" if ":" in address else address
    print(f"{surrogate.card['study']} is served at http://{where}:{number}; Ctrl-C ends it", flush=True)
    try:
        run_service(app, listening)
    finally:
        if log is not None:
            log.close()


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
