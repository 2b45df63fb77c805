"""`penstock serve`: the trained surrogate over HTTP."""

from __future__ import annotations

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
    """Answer predictions of the trained surrogate over HTTP: POST /predict, GET /card, /docs, /health, /metrics.

    If the environment variable PENSTOCK_SERVICE_TOKEN is set, requests must carry it as "Authorization: Bearer TOKEN".
    """
    token = os.environ.get(TOKEN)
    if not token and host not in ("127.0.0.1", "localhost"):
        raise PenstockError(
            f"--host {host}: everyone who reaches this address could ask; set the environment variable {TOKEN} to a "
            "secret of your choice, or leave --host out"
        )
    import uvicorn

    from penstock.service import make_app
    from penstock_server.surrogate import Surrogate

    app = make_app(Surrogate.load(directory), token or None)
    uvicorn.run(app, host=host, port=port, log_level="warning")
