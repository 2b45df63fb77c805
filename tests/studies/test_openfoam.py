"""The OpenFOAM examples as their users run them: real icoFoam, streamed from memory, nothing of it on a disk."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from command import EXAMPLES, events, penstock, report, started

from penstock_solvers.processes import default_root
from waiting import PATIENCE, busy, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.openfoam]

TIME_DIRECTORY = re.compile(r"\d+(\.\d+)?(e[+-]\d+)?")
RUN_DIRECTORY = {
    *("study.toml", "connect.json", "events.jsonl", "metrics.jsonl", "targets.json", "report.json", "mesh.h5", ".lock"),
    *("checkpoints", "tensorboard", "logs", "model", "validation_snapshots.h5", "keys.json", ".keys.lock", "workers"),
}


def cases(study: psutil.Process) -> Iterator[Path]:
    """The folders in which the solvers of a running study work, all of them below the folder for that."""
    for process in study.children(recursive=True):
        with suppress(psutil.Error):
            folder = Path(process.cwd())
            if folder.is_relative_to(default_root()):
                yield folder


class Watch:
    """Looks again and again which time directories exist in the cases of a study's running simulations."""

    def __init__(self, study: subprocess.Popen[str]) -> None:
        self.found: set[str] = set()
        self.looks = 0
        self._study = psutil.Process(study.pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            with suppress(FileNotFoundError, psutil.NoSuchProcess):  # a simulation has ended, and its case with it
                for case in cases(self._study):
                    names = [path.name for path in case.iterdir()]
                    self.looks += "system" in names
                    self.found.update(name for name in names if TIME_DIRECTORY.fullmatch(name))


def is_held(folder: Path) -> bool:
    """Whether some worker uses a template."""
    with suppress(FileNotFoundError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False
    return True  # it has just been removed


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("example", "steps", "error"), [("cavity", 100, 0.05), ("elbow", 100, 0.08)])
def test_an_openfoam_example_is_learnt_from_memory(example: str, steps: int, error: float, tmp_path: Path) -> None:
    out = tmp_path / example
    process = started("run", EXAMPLES / example / "study.toml", "--out", out)
    with Watch(process) as watch:
        printed, _ = process.communicate(timeout=1100)
    assert process.returncode == 0, printed
    done = report(out)
    assert done["status"] == "finished"
    assert done["simulations"] == {"requested": 70, "finished": 70, "failed": 0, "restarted": 0, "redrawn": 0}
    samples = done["samples"]
    assert samples["expected"] == samples["unique"] == samples["trained_unique"] == 64 * steps
    assert samples["rejected"] == samples["duplicates_dropped"] == samples["incomplete_dropped"] == 0
    assert done["validation"]["samples"] == 6 * steps
    assert done["validation"]["fields"]["U"]["relative_l2"] <= error
    assert watch.looks > 0
    assert watch.found == {"0"}
    assert {path.name for path in out.iterdir()} <= RUN_DIRECTORY
    assert all("courant" in event["text"] for event in events(out, "solver"))
    penstock("plot", out)
    assert len(list((out / "plots").glob("simulation_*_U.png"))) == 2


def test_a_case_that_diverges_fails_with_its_last_lines_and_the_study_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = EXAMPLES / "cavity" / "study.toml"
    settings = ["study.engine=inline", "solver.simulations=8", "solver.validation_simulations=1", "solver.retries=0",
                "parameters.lid_velocity=[0.5, 60.0]", "buffer.watermark=20", "solver.options.max_courant=20"]  # fmt: skip
    penstock("run", study, "--out", out, *[a for s in settings for a in ("--set", s)])
    done = report(out)
    assert done["status"] == "finished"
    assert 0 < done["simulations"]["failed"] < 9
    for text in done["failures"].values():
        assert "Courant" in text
        assert "last" in text
    assert done["samples"]["unique"] == done["samples"]["expected"] == done["samples"]["trained_unique"]


def test_ctrl_c_leaves_nothing_of_openfoam_behind(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = started("run", EXAMPLES / "cavity" / "study.toml", "--out", out)
    wait_for(lambda: len(events(out, "finished")) > 3)
    family = psutil.Process(process.pid).children(recursive=True)
    folders = wait_for(lambda: set(cases(psutil.Process(process.pid))))
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert time.monotonic() - begun < 10 * busy()
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
    assert report(out)["status"] == "stopped"
    assert [folder for folder in folders if folder.exists()] == []
    # Of other studies of this case, which may run beside it, the template may be there.
    assert all(is_held(folder.parent / "template") for folder in folders if folder.parent.exists())
