"""`penstock key`: the keys with which workers connect to a study. A running server notices changes by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.common import RunDirectory

key = typer.Typer(help="Add, revoke and list the keys with which workers connect to a study.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the worker.", show_default=False)]


@key.command()
def add(
    directory: RunDirectory,
    name: Name,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: DIR/workers/NAME.json.")] = None,
) -> None:
    """Make a key for a worker, and the file for `penstock worker --connect`. A running study accepts it at once."""
    from penstock.run import open_run
    from penstock_server.network import hand_out

    open_run(directory)
    print(f"written to {hand_out(directory, name, out)}")


@key.command()
def revoke(directory: RunDirectory, name: Name) -> None:
    """Revoke the key of a worker. A running study takes nothing more from it, even if it is connected."""
    from penstock_server.network import revoke_worker

    revoke_worker(directory, name)
    print(f"{name}: revoked")


@key.command(name="list")
def list_(directory: RunDirectory) -> None:
    """List the keys of a study, without their secret parts."""
    from penstock_server.network import KEYS_FILE, load_keys

    keys = load_keys(directory / KEYS_FILE)
    width = max(map(len, keys.workers))
    for name, worker in keys.workers.items():
        print(f"{name:<{width}}  {'revoked' if worker.revoked else 'allowed'}  {worker.public}  {keys.file_of(name)}")
