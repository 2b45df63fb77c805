"""`penstock record`: the stream of a study into one HDF5 file, to train on it later ([training] source)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from penstock.run.directory import LOCK, hold
from penstock.run.display import Display
from penstock.run.run import EXIT, Signals, serve
from penstock.study import StudyError, make_importable, quiet_waiting
from penstock_server.study import Study


def record_study(study: Study, out: Path, display: Display) -> int:
    """Run all simulations of a study, held-out ones included, and write their time steps to `out`; returns the exit code.

    The file is there, whole, at the end, or not at all. Logs and events lie in `out`.recording meanwhile, and stay there where
    something failed.

    Raises:
        StudyError: `out` is there already, its folder is not, or another process records to it.
    """
    if out.exists():
        raise StudyError([f"--out {out}: is there already; expected a new file: remove it, or choose another --out"])
    if not out.absolute().parent.is_dir():
        raise StudyError([f"--out {out}: there is no folder {out.absolute().parent}; make it, or choose another --out"])
    directory = out.with_name(out.name + ".recording")
    with hold(directory):
        _clear(directory)
        make_importable(study)
        quiet_waiting()
        # Here and not above: it imports torch, whose OpenMP reads its settings once.
        from penstock_server.engines.record import RecordEngine

        signals = Signals()
        with signals.caught():
            engine = RecordEngine(study, directory, out.absolute())
            display.log(f"recording {study.study.name} to {out}")
            end = serve(
                engine, directory, display, signals, workers=study.solver.concurrency, stopping="leaving no file"
            )
        _say(end, out, directory, display)
        if end["status"] == "stopped" or (end["status"] == "finished" and not end["failures"]):
            shutil.rmtree(directory)
    return EXIT[end["status"]]


def _clear(directory: Path) -> None:
    """Remove what an earlier recording to the same file has left."""
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _say(end: dict[str, Any], out: Path, directory: Path, display: Display) -> None:
    """How it ended, in a few lines."""
    counts = end["simulations"]
    for simulation, message in list(end["failures"].items())[:5]:
        display.log(f"simulation {simulation} failed: {message.splitlines()[0] if message else ''}")
    if end["status"] != "finished":
        logs = f"; logs are in {directory}" if end["status"] == "failed" else ""
        display.log(f"recording {end['status']} ({end['message']}): there is no {out}{logs}")
        return
    display.log(
        f"{out}: {counts.finished} of {counts.requested} simulations, {end['time_steps']} time steps, {end['bytes']} bytes "
        f"in {end['wall_seconds']:.1f} s"
    )
    if counts.failed:
        display.log(
            f"{counts.failed} simulations failed, of which the file has what had arrived; logs are in {directory}"
        )
