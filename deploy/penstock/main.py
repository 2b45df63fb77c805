"""The command `penstock`: the whole command line, or, where only the client is installed, `penstock worker` alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from penstock.cli.failures import INSTALL, explain, flush_output, log_failures_in, open_closed_streams
from penstock_client.imports import without_collection


def main() -> None:
    """Run `sys.argv` and exit: 0 done, 1 the study or the command failed, 2 wrong usage or study file."""
    open_closed_streams()
    log_failures_in(None)
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    try:
        _run()
        code = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:  # no error of any kind may end a command in a traceback
        code = explain(error, command)
    sys.exit(code or flush_output())


def _run() -> None:
    try:
        with without_collection():
            from penstock.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "click", "rich"):
            raise
        sys.exit(_worker_only(sys.argv[1:]))
    app(prog_name="penstock")


def _worker_only(arguments: list[str]) -> int:
    """Run `penstock worker`, the only command that the client alone can run; return the exit code."""
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
