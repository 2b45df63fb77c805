"""`penstock watch`: the live page of a run directory."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.common import RunDirectory
from penstock_client import PenstockError

TOKEN = "PENSTOCK_WATCH_TOKEN"


def watch(
    directory: RunDirectory,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port to listen on; 0: any free one. Default: the first free one from 5006 on.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Another than 127.0.0.1 is for those who have the token.")
    ] = "127.0.0.1",
) -> None:
    """Show a study in a browser while it runs, or afterwards: curves, simulations, held-out fields.

    With another --host, or if the environment variable PENSTOCK_WATCH_TOKEN is set, the page needs a token: that
    variable, or a new one that is printed with the address.
    """
    from penstock.live.server import is_local, serve_page
    from penstock.slurm.state import read_jobs

    _expect_run_or_nothing(directory)
    token = os.environ.get(TOKEN) or (None if is_local(host) else secrets.token_urlsafe(24))

    def say(address: str, there: int) -> None:
        print(f"live page: {address}", flush=True)
        if is_local(host):
            print(f"from another machine: ssh -L {there}:{host}:{there} {socket.gethostname()}", flush=True)

    serve_page(directory, host=host, port=port, token=token, jobs=read_jobs, say=say)


def _expect_run_or_nothing(directory: Path) -> None:
    """Check that a folder is a run directory, or may become one."""
    from penstock.run import open_run

    if not directory.is_dir():
        raise PenstockError(
            f"{directory}: there is no such folder; expected a run directory: give what `penstock run` printed as its "
            "--out"
        )
    if any(not path.name.startswith(".") and path.name != "logs" for path in directory.iterdir()):
        open_run(directory)
