"""The command `penstock`: the whole command line, or, where only the client is installed, `penstock worker` alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from penstock_client import PenstockError

INSTALL = "pip install 'penstock[server]'"
EXTRAS = {"PyFoam": "pip install 'penstock[openfoam]'", "scipy": "pip install 'penstock[solvers]'"}


def main() -> None:
    """Run `sys.argv` and exit: 0 done, 1 the study failed, 2 bad usage or study file."""
    try:
        try:
            from penstock.cli.app import app
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("typer", "click", "rich"):
                raise
            sys.exit(_worker_only(sys.argv[1:]))
        app(prog_name="penstock")
    except PenstockError as error:
        # A StudyError by its shape, not its class: pydantic is not imported for a worker.
        problems = getattr(error, "problems", None)
        print("\n".join(problems) if problems else f"penstock: {error}", file=sys.stderr)
        sys.exit(2 if problems else 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("penstock"):
            raise
        command = EXTRAS.get(package, INSTALL)
        print(f"penstock: this command needs the package {package}, which is not installed: {command}", file=sys.stderr)
        sys.exit(1)


def _worker_only(arguments: list[str]) -> int:
    if arguments[:1] != ["worker"]:
        print(
            f"penstock: only `penstock worker` works without the server extra; for the rest: {INSTALL}", file=sys.stderr
        )
        return 2
    parser = argparse.ArgumentParser(prog="penstock worker", description="Serve simulations of a running study.")
    parser.add_argument("--connect", type=Path, required=True, help="connect.json in the study's run directory")
    from penstock_solvers.worker import run_worker

    return run_worker(parser.parse_args(arguments[1:]).connect)


if __name__ == "__main__":
    main()
