"""What streaming costs a solver: icoFoam with 40,000 cells, streaming every step, not at all, or writing it to disk."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
from provenance import ROOT

from penstock_solvers.openfoam.build import OpenFOAMBuildError, build
from penstock_solvers.openfoam.environment import OpenFOAMMissing, openfoam_environment
from performance.pairs import OURS, CannotRun, Figures, Row, in_turn, one_line
from performance.plan import Plan
from performance.processes import FOLDER, Failed

GROUP = "solver"
CASE = ROOT / "examples" / "cavity" / "case"
CELLS = 200  # along each side
TIME_STEP = 0.0002
WITHOUT, ASCII, BINARY = "no output", "every step written to disk, ascii", "every step written to disk, binary"
WALL, CPU, BLOCKED = "s of wall time", "s of CPU of the solver", "share of time waiting for the server"
SLOWDOWN = 1.03  # the bound of issue 14
NEVER = 1_000_000
ENTRY = """
functions
{{
    penstock
    {{
        type    penstockStream;
        libs    ("{library}");
        fields  (U p);
    }}
}}
"""


def measure(plan: Plan) -> None:
    """Measure the group."""
    if shutil.which("icoFoam") is None:
        raise CannotRun("OpenFOAM is not installed (apt-get install openfoam)")
    try:
        library = build(log=lambda _line: None)  # one that is there may be of older sources
    except (OpenFOAMMissing, OpenFOAMBuildError) as error:
        raise CannotRun(one_line(str(error))) from error
    steps = 6 if plan.quick else 20
    things: dict[str, Callable[[], Figures]] = {
        OURS: partial(_streaming, plan, steps, library),
        WITHOUT: partial(_alone, plan, steps, NEVER, "ascii"),
        ASCII: partial(_alone, plan, steps, 1, "ascii"),
        BINARY: partial(_alone, plan, steps, 1, "binary"),
    }
    turns = in_turn(things, plan.rounds)
    case = f"icoFoam, {CELLS * CELLS:,} cells, {steps} steps"
    plan.show(Row.of(GROUP, case, WALL, turns, "less", {WITHOUT: SLOWDOWN, ASCII: 1.0, BINARY: 1.0}))
    plan.show(Row.of(GROUP, case, CPU, turns, "less"))
    plan.show(Row.of(GROUP, case, BLOCKED, turns, "less"))


def _case(folder: Path, steps: int, write_interval: int, form: str, functions: str = "") -> Path:
    """Make the case with its mesh."""
    case = folder / "case"
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(CASE, case)
    mesh, control = case / "system" / "blockMeshDict", case / "system" / "controlDict"
    mesh.write_text(mesh.read_text().replace("(20 20 1)", f"({CELLS} {CELLS} 1)"))
    text = control.read_text()
    entries = {
        "endTime": f"{steps * TIME_STEP:g}",
        "deltaT": f"{TIME_STEP:g}",
        "writeControl": "timeStep",
        "writeInterval": str(write_interval),
        "writeFormat": form,
    }
    for name, value in entries.items():
        text = re.sub(rf"^{name} .*$", f"{name} {value};", text, flags=re.M)
    control.write_text(text + functions)
    done = subprocess.run(
        ["blockMesh"], cwd=case, env=openfoam_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"blockMesh ended with {done.returncode}: {one_line(done.stdout)}")
    return case


def _timed(case: Path, out: Path) -> list[str]:
    return [sys.executable, str(FOLDER / "timed.py"), str(out), "icoFoam", "-case", str(case)]


def _alone(plan: Plan, steps: int, write_interval: int, form: str) -> Figures:
    case, out = _case(plan.scratch, steps, write_interval, form), plan.scratch / "timed.json"
    try:
        _run(_timed(case, out), "icoFoam")
        return _figures(out)
    finally:
        shutil.rmtree(case, ignore_errors=True)


def _streaming(plan: Plan, steps: int, library: Path) -> Figures:
    """Run icoFoam as the solver of a study that trains the smallest model meanwhile."""
    case = _case(plan.scratch, steps, NEVER, "ascii", ENTRY.format(library=library))
    out, run, study = (plan.scratch / name for name in ("timed.json", "run", "solver.toml"))
    settings: dict[str, Any] = {
        "study": {"name": "solver", "engine": "inline"},
        "parameters": {"a": [0.0, 1.0]},
        "solver": {"command": _timed(case, out), "simulations": 1},
        "fields": {"U": {"components": 3}, "p": {}},
        "buffer": {"policy": "fifo"},
        "model": {"name": "mlp", "hidden": [1]},
        "training": {"device": "cpu", "checkpoint_every": "1 h"},
    }
    study.write_text(tomli_w.dumps(settings))
    try:
        _run([sys.executable, "-m", "penstock.main", "run", str(study), "--out", str(run)], "penstock run")
        figures = _figures(out)
        clients = json.loads((run / "report.json").read_text())["clients"]
        return {**figures, BLOCKED: clients["blocked_seconds"] / figures[WALL]}
    finally:
        for folder in (case, run):
            shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], name: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        env=openfoam_environment(),
        check=False,
    )
    if done.returncode:
        raise Failed(f"{name} ended with {done.returncode}: {one_line(done.stderr or done.stdout)}")


def _figures(out: Path) -> dict[str, float]:
    found = json.loads(out.read_text())
    out.unlink()
    return {WALL: found["wall"], CPU: found["cpu"]}
