"""Running the first time step of a study's Python solver, to see that its fields are as its class declares them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.study.threads import SOLVER_ENVIRONMENT
from penstock_server.coordinator import make_plan
from penstock_server.study import Study
from penstock_solvers.solver import EXTERNAL


@dataclass(frozen=True)
class FirstStep:
    """What `penstock check` says of the first time step.

    Attributes:
        said: what was run, or that nothing was.
        problem: line for the user, "[solver] ..."; "" where there is none.
    """

    said: str
    problem: str = ""


def run_first_step(study: Study, seconds: float) -> FirstStep:
    """Run the Python solver of a study at its first point until its first time step, in a process of its own.

    Args:
        study: without problems, and its modules importable in processes started from here.
        seconds: the process is ended after so long; 0 runs nothing.

    Returns:
        What was run, and what is wrong with it.
    """
    if study.training.source is not None:
        return FirstStep("no solver was run: the study trains on a recording")
    if study.solver.adapter is None:
        return FirstStep("the command was not run: only a Python solver is run until its first time step")
    if study.solver.adapter in EXTERNAL:
        return FirstStep("OpenFOAM was not run: only a Python solver is run until its first time step")
    if not seconds:
        return FirstStep("the solver was not run")
    point = make_plan(study)[0].parameters
    task = {
        "adapter": study.solver.adapter,
        "options": study.solver.options,
        "directory": study.directory,
        "fields": list(study.fields),
        "parameters": dict(zip(study.parameters.names, point, strict=True)),
    }
    with tempfile.TemporaryDirectory(prefix="penstock-check-") as folder:
        return _outcome(json.dumps(task), Path(folder), seconds)


def _outcome(task: str, folder: Path, seconds: float) -> FirstStep:
    outcome, log = folder / "outcome.json", folder / "log"
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock_solvers.first_step", str(outcome)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, **SOLVER_ENVIRONMENT},
            start_new_session=True,
        )
    try:
        process.communicate(task.encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        return FirstStep(
            f"the solver has sent no time step within {seconds:g} s and was ended, so its fields were not compared; "
            f"--first-step {10 * seconds:g} waits longer"
        )
    finally:
        _end(process)
    if not outcome.exists():
        last = (log.read_text(errors="replace").strip().splitlines() or ["it has printed nothing"])[-1]
        return FirstStep("", f"[solver] at the first point the solver ended with code {process.returncode}: {last}")
    found = json.loads(outcome.read_text())
    if "failed" in found:
        return FirstStep(
            "",
            f"[solver] the first simulation failed before its first time step: {found['failed']}; correct the solver, "
            "or leave this out with --first-step 0",
        )
    return FirstStep(
        f"the solver was run at the first point until its first time step ({time.monotonic() - begun:.1f} s), which "
        f"has the fields as declared: {found['fields']}"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all processes that the solver has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
