"""`penstock key`: who may connect to a study. What these commands change, a running server notices by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

key = typer.Typer(help="Who may connect to a study: a key for each worker.", no_args_is_help=True)

RunDirectory = Annotated[Path, typer.Argument(metavar="DIR", help="A study's run directory.", show_default=False)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The worker's name.", show_default=False)]


@key.command()
def add(
    directory: RunDirectory,
    name: Name,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: DIR/workers/NAME.json.")] = None,
) -> None:
    """Make a key for a worker and the file that `penstock worker --connect` takes; a running study lets it in at once."""
    from penstock.run import open_run
    from penstock_server.network import hand_out

    open_run(directory)
    print(f"written to {hand_out(directory, name, out)}")


@key.command()
def revoke(directory: RunDirectory, name: Name) -> None:
    """Shut a worker out, also one that is connected: a running study takes nothing from it any more."""
    from penstock_server.network import revoke_worker

    revoke_worker(directory, name)
    print(f"{name}: revoked")


@key.command(name="list")
def list_(directory: RunDirectory) -> None:
    """Show the keys of a study, without what is secret."""
    from penstock_server.network import KEYS_FILE, load_keys

    keys = load_keys(directory / KEYS_FILE)
    width = max(map(len, keys.workers))
    for name, worker in keys.workers.items():
        print(f"{name:<{width}}  {'revoked' if worker.revoked else 'allowed'}  {worker.public}  {keys.file_of(name)}")
