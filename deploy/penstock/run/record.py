"""`penstock record`: the stream of a study into one HDF5 file, to train on it later ([training] source)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from penstock.run.directory import LOCK, LOGS, hold
from penstock.run.display import Display
from penstock.run.report import EXIT_CODES, failure_lines
from penstock.run.serve import serve
from penstock.run.signals import Signals
from penstock.study import StudyError, make_importable, make_openmp_wait_passively
from penstock_server.study import Study


def record_study(study: Study, out: Path, display: Display) -> int:
    """Run all simulations of a study, held-out ones included, and write their time steps to a file.

    The file is there, whole, at the end, or not at all. A recording that ends early keeps the simulations that have
    finished in a file of another name. Logs and events are in `out`.recording meanwhile, and stay there where
    something failed.

    Args:
        study: checked (`penstock.study.check.check_study`).
        out: the file, which does not exist yet.
        display: shows the progress and the outcome.

    Returns:
        The exit code: 0 finished, 1 stopped or failed.

    Raises:
        StudyError: `out` exists already, its folder does not, or another process records to it.
    """
    if out.exists():
        raise StudyError([f"--out {out}: is there already; expected a new file: remove it, or choose another --out"])
    if not out.absolute().parent.is_dir():
        raise StudyError([f"--out {out}: there is no folder {out.absolute().parent}; make it, or choose another --out"])
    directory = recording_directory(out)
    with hold(directory):
        _clear(directory)
        make_importable(study)
        make_openmp_wait_passively()
        # Imported here: it imports torch, whose OpenMP reads its environment variables once.
        from penstock_server.engines.record import RecordEngine

        signals = Signals()
        with signals.caught():
            engine = RecordEngine(study, directory, out.absolute())
            display.log(f"recording {study.study.name} to {out}")
            if study.solver.on_failure == "redraw":
                display.log(
                    'warning: [solver] on_failure = "redraw" is not applied: a recording has no room for other points'
                )
            end = serve(
                engine,
                directory,
                display,
                signals,
                workers=study.solver.concurrency,
                timeouts=study.timeouts,
                stopping="keeping the simulations that have finished",
            )
        _print_end(end, out, directory, display)
        if end["status"] == "stopped" or (end["status"] == "finished" and not end["failures"]):
            shutil.rmtree(directory)
    return EXIT_CODES[end["status"]]


def recording_directory(out: Path) -> Path:
    """The folder that holds logs and events while a file is recorded."""
    return out.with_name(out.name + ".recording")


def _clear(directory: Path) -> None:
    """Remove what an earlier recording to the same file has left."""
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _print_end(end: dict[str, Any], out: Path, directory: Path, display: Display) -> None:
    counts = end["simulations"]
    for line in failure_lines(end["failures"], directory / LOGS):
        display.log(line)
    if end["path"] != out.absolute():
        logs = f"; logs are in {directory}" if end["status"] == "failed" else ""
        kept = f"{end['path']} has the simulations that have finished, {end['kept']} of {counts.requested}; "
        display.log(
            f"recording {end['status']} ({end['message']}): {kept if end['path'] else ''}there is no {out}{logs}"
        )
        return
    display.log(
        f"{out}: {counts.finished} of {counts.requested} simulations, {end['time_steps']} time steps, "
        f"{end['bytes']} bytes in {end['wall_seconds']:.1f} s"
    )
    if end["status"] != "finished":
        display.log(f"recording {end['status']}: {end['message']}")
    if counts.failed:
        display.log(
            f"{counts.failed} simulations failed, of which the file has what had arrived; logs are in {directory}"
        )
