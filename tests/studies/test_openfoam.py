"""The OpenFOAM examples as their users run them: real icoFoam, streamed from memory, nothing of it on a disk."""

from __future__ import annotations

import re
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from command import EXAMPLES, events, penstock, report, started, wait_for

from penstock_solvers.processes import default_root

pytestmark = [pytest.mark.slow, pytest.mark.openfoam]

TIME_DIRECTORY = re.compile(r"\d+(\.\d+)?(e[+-]\d+)?")
RUN_DIRECTORY = {
    *("study.toml", "connect.json", "events.jsonl", "metrics.jsonl", "targets.json", "report.json", "mesh.h5", ".lock"),
    *("checkpoints", "tensorboard", "logs", "model", "validation_snapshots.h5", "keys.json", ".keys.lock", "workers"),
}


class Watch:
    """Looks again and again which time directories exist in the cases of running simulations."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.cases = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            with suppress(FileNotFoundError):  # a simulation has ended, and its case with it
                for control in default_root().glob("**/system"):
                    names = [path.name for path in control.parent.iterdir()]
                    self.cases += 1
                    self.found.update(name for name in names if TIME_DIRECTORY.fullmatch(name))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("example", "steps", "error"), [("cavity", 100, 0.05), ("elbow", 100, 0.08)])
def test_an_openfoam_example_is_learnt_from_memory(example: str, steps: int, error: float, tmp_path: Path) -> None:
    out = tmp_path / example
    with Watch() as watch:
        penstock("run", EXAMPLES / example / "study.toml", "--out", out, timeout=800)
    done = report(out)
    assert done["status"] == "finished"
    assert done["simulations"] == {"requested": 70, "finished": 70, "failed": 0, "restarted": 0, "redrawn": 0}
    samples = done["samples"]
    assert samples["expected"] == samples["unique"] == samples["trained_unique"] == 64 * steps
    assert samples["rejected"] == samples["duplicates_dropped"] == samples["incomplete_dropped"] == 0
    assert done["validation"]["samples"] == 6 * steps
    assert done["validation"]["fields"]["U"]["relative_l2"] <= error
    assert watch.cases > 0
    assert watch.found == {"0"}
    assert {path.name for path in out.iterdir()} <= RUN_DIRECTORY
    assert all("courant" in event["text"] for event in events(out, "solver"))
    penstock("plot", out)
    assert len(list((out / "plots").glob("simulation_*_U.png"))) == 2


def test_a_case_that_diverges_fails_with_its_last_lines_and_the_study_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = EXAMPLES / "cavity" / "study.toml"
    settings = ["solver.simulations=8", "solver.validation_simulations=1", "solver.retries=0",
                "parameters.lid_velocity=[0.5, 400.0]", "buffer.watermark=20", "solver.options.max_courant=20"]  # fmt: skip
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
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert time.monotonic() - begun < 10
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert report(out)["status"] == "stopped"
    assert not default_root().exists() or not any(default_root().iterdir())
