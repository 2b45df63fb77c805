"""The offline side from the command line: a study recorded, disturbed or not, and trained on from the file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from command import EXAMPLES, events, penstock, report, started

from penstock.study import load_study
from penstock_server.checkpoint import load_latest
from penstock_server.coordinator import make_plan
from penstock_server.recording import Recording, RecordingReader, check_recording
from penstock_solvers.problems.heat2d import Heat2D
from waiting import PATIENCE, wait_for

pytestmark = pytest.mark.slow

HEAT = EXAMPLES / "heat" / "study.toml"
SMALL = [
    f"--set={setting}"
    for setting in (
        "solver.simulations=20",
        "solver.validation_simulations=3",
        "solver.options.points=16",
        "solver.options.steps=30",
        "solver.concurrency=2",
        "training.device=cpu",
    )
]


def offline(file: Path, **training: object) -> list[str]:
    settings = {"source": file, **training}
    return [*SMALL, *(f"--set=training.{key}={value}" for key, value in settings.items())]


def hold_against_the_solver(file: Path, simulations: int, steps: int) -> None:
    """Every time step of every simulation once, bit for bit as the solver gives it."""
    there = Recording.open(file)
    study = load_study(HEAT, [setting.removeprefix("--set=") for setting in SMALL])
    study = study.model_copy(update={"solver": study.solver.model_copy(update={"simulations": simulations - 3})})
    plan, solver, reader = (
        make_plan(study),
        Heat2D(points=16, steps=steps, dt=study.solver.options["dt"]),
        RecordingReader(there, "step"),
    )
    assert there.steps.tolist() == [steps] * simulations
    assert there.held_out.tolist() == [point.validation for point in plan]
    assert there.finished.all()
    for number, point in enumerate(plan):
        assert there.points[number].tolist() == list(point.parameters)
        named = dict(zip(study.parameters.names, point.parameters, strict=True))
        solved = np.array([fields["T"].ravel() for _, fields in solver.run(named)])
        inputs, values = reader.read(number, 0, steps)
        assert np.array_equal(values, solved)
        assert np.array_equal(inputs[:, :-1], np.array([point.parameters] * steps, np.float32))
        assert inputs[:, -1].tolist() == list(range(steps))
    reader.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the small heat study."""
    path = tmp_path_factory.mktemp("recording") / "data.h5"
    printed = penstock("record", HEAT, "--out", path, *SMALL)
    assert f"{path}: 23 of 23 simulations, 690 time steps, {path.stat().st_size} bytes in " in printed
    assert [p.name for p in path.parent.iterdir()] == ["data.h5"]
    return path


def test_a_recording_holds_what_the_solver_gives(file: Path) -> None:
    hold_against_the_solver(file, 23, 30)


def test_a_study_trains_on_a_recording(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "nothing wrong found" in penstock("check", HEAT, *offline(file))
    printed = penstock("run", HEAT, "--out", out, *offline(file, epochs=30))
    done = report(out)
    assert (done["status"], done["message"], done["engine"]) == ("finished", "all epochs done", "offline")
    assert done["simulations"] == {"requested": 23, "finished": 23, "failed": 0, "restarted": 0, "redrawn": 0}
    samples = done["samples"]
    assert {samples[key] for key in ("expected", "received", "unique", "trained_unique")} == {600}
    assert samples["presentations"] == 30 * 600
    assert samples["duplicates_dropped"] == samples["rejected"] == 0
    assert done["training"]["batches"] == -(-30 * 600 // 32)
    assert 0 <= done["training"]["stall_fraction"] <= 1
    assert (done["buffer"]["policy"], done["buffer"]["capacity"]) == ("offline", 600)
    assert done["buffer"]["times_seen"] == {"30": 600}
    assert done["validation"]["samples"] == 3 * 30
    assert done["validation"]["relative_l2"] < 0.1
    assert "relative L2" in printed
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"train", "validation"}
    assert "23 of 23 finished" in penstock("status", out)
    penstock("plot", out)
    penstock("export", out)
    values = [f"--set={name}=300" for name in ("initial", "left", "right", "bottom", "top")]
    assert "T at 20" in penstock("predict", out, *values, "--step", "20")


def test_a_part_of_the_recording_and_a_seed_give_the_same_weights_twice(file: Path, tmp_path: Path) -> None:
    weights = []
    for run, readers in (("one", 0), ("two", 2)):
        out = tmp_path / run
        more = ["--set=solver.simulations=5", "--set=solver.validation_simulations=1", "--set=training.threads=1"]
        penstock("run", HEAT, "--out", out, *offline(file, loader_workers=readers, max_batches=20), *more)
        done = report(out)
        assert done["message"] == "max_batches reached"
        assert (done["samples"]["unique"], done["training"]["batches"]) == (150, 20)
        assert done["buffer"]["times_seen"] == {"4": 110, "5": 40}
        assert done["validation"]["samples"] == 30
        weights.append(load_latest(out / "checkpoints").parts["trainer"]["model"])
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_statistics_are_of_the_whole_training_part_before_the_first_batch(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    penstock("run", HEAT, "--out", out, *offline(file, max_batches=1))
    own = load_latest(out / "checkpoints").parts["normaliser"]["applied"]
    with h5py.File(file) as recording:
        values = recording["values"][:20].astype(np.float64)
    count, mean, m2 = own[1 + 4 * 6 :][:3]
    assert count == values.size
    assert mean == pytest.approx(values.mean())
    assert m2 / count == pytest.approx(values.var())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_offline_study_goes_on_where_it_was(number: signal.Signals, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = started("run", HEAT, "--out", out, *offline(file, epochs=100_000, loader_workers=2))
    wait_for(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count('"train"') > 1)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    if number is signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, printed
    assert "Traceback" not in printed
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
    stopped = report(out)
    assert stopped["status"] == "stopped"
    batches = stopped["training"]["batches"]
    drawn = stopped["samples"]["presentations"]
    assert drawn == 32 * batches > 0
    study = out / "study.toml"
    epochs = drawn // 600 + 3
    study.write_text(study.read_text().replace("epochs = 100000", f"epochs = {epochs}"))
    penstock("resume", out)
    done = report(out)
    assert (done["status"], done["incarnations"]) == ("finished", 2)
    assert done["samples"]["presentations"] == epochs * 600
    assert done["samples"]["received"] == 600
    assert done["buffer"]["times_seen"] == {str(epochs): 600}


def test_what_check_says_of_a_recording(file: Path, tmp_path: Path) -> None:
    assert "no such file" in penstock("check", HEAT, *offline(tmp_path / "nothing.h5"), code=2)
    assert "is no recording" in penstock("check", HEAT, *offline(HEAT), code=2)
    printed = penstock("check", HEAT, *offline(file), "--set=solver.simulations=21", "--set=samples.window=31", code=2)
    assert "[solver] simulations = 21" in printed
    assert "[training] source" in penstock("check", HEAT, *offline(file), "--set=fields.U={}", code=2)


def test_a_solver_that_is_not_there_does_not_matter_to_a_recording(file: Path, tmp_path: Path) -> None:
    text = HEAT.read_text().replace('adapter = "heat2d"', 'command = ["./not_there"]')
    lines = [line for line in text.splitlines() if not line.startswith("options")]
    study = tmp_path / "study.toml"
    study.write_text("\n".join(lines))
    settings = [s for s in offline(file) if "solver.options" not in s]
    assert "nothing wrong found" in penstock("check", study, *settings)
    assert "not_there" in penstock("check", study, *[s for s in settings if "source" not in s], code=2)


def test_workers_killed_while_recording_lose_and_double_nothing(tmp_path: Path) -> None:
    path, directory = tmp_path / "data.h5", tmp_path / "data.h5.recording"
    process = started(
        "record", HEAT, "--out", path, *SMALL, "--set=solver.simulations=60", "--set=solver.options.steps=200"
    )
    for killed in range(2):
        held = wait_for(
            lambda k=killed: len(events(directory, "assigned")) > 3 + 8 * k and events(directory, "assigned")[-1]
        )
        os.kill(held["pid"], signal.SIGKILL)
        wait_for(lambda k=killed: len(events(directory, "client_lost")) > k)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    assert f"63 of 63 simulations, {63 * 200} time steps" in printed
    hold_against_the_solver(path, 63, 200)
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_recording_keeps_what_has_finished(tmp_path: Path) -> None:
    path, directory = tmp_path / "data.h5", tmp_path / "data.h5.recording"
    process = started("record", HEAT, "--out", path, *SMALL, "--set=solver.simulations=100000")
    wait_for(lambda: len(events(directory, "finished")) > 5)
    assert "a study is running there" in penstock("record", HEAT, "--out", path, *SMALL, code=2)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, printed
    assert "Traceback" not in printed
    partial = tmp_path / "data-partial.h5"
    assert f"recording stopped (interrupted by SIGINT): {partial} has the simulations that have finished, " in printed
    assert list(tmp_path.iterdir()) == [partial]
    there = Recording.open(partial)
    assert there.finished.sum() > 5
    assert len(set(there.steps[there.finished].tolist())) == 1, "a finished simulation has all its time steps"
    assert f"{there.finished.sum()} of 100003; there is no {path}" in printed
    study = load_study(HEAT, [setting.removeprefix("--set=") for setting in offline(partial)])
    assert check_recording(there, study) == []


def test_a_recording_with_failed_simulations_keeps_what_had_arrived(tmp_path: Path) -> None:
    (tmp_path / "breaking.py").write_text(
        "from penstock_solvers.problems.heat2d import Heat2D\n"
        "class Breaking(Heat2D):\n"
        "    def run(self, parameters):\n"
        "        for number, step in enumerate(super().run(parameters)):\n"
        "            if number == 7 and parameters['initial'] > 400:\n"
        "                raise RuntimeError('the plate has melted')\n"
        "            yield step\n"
    )
    study = tmp_path / "study.toml"
    study.write_text(HEAT.read_text().replace('"heat2d"', '"breaking:Breaking"'))
    path = tmp_path / "data.h5"
    printed = penstock("record", study, "--out", path, *SMALL)
    there = Recording.open(path)
    failed = there.points[:, 0] > 400
    assert failed.any()
    assert (there.finished == ~failed).all()
    assert there.steps.tolist() == [7 if f else 30 for f in failed]
    assert "the plate has melted" in printed
    assert f"{failed.sum()} simulations failed" in printed
    assert (tmp_path / "data.h5.recording" / "events.jsonl").exists()
    out = tmp_path / "run"
    penstock("run", study, "--out", out, *offline(path, epochs=1))
    done = report(out)
    assert done["samples"]["unique"] == there.steps[:20].sum()
    assert done["simulations"]["failed"] == failed.sum()
    printed = penstock("record", study, "--out", path, *SMALL, code=2)
    assert "is there already" in printed


def test_a_study_of_which_every_simulation_fails_leaves_no_file(tmp_path: Path) -> None:
    study, path = tmp_path / "study.toml", tmp_path / "data.h5"
    text = HEAT.read_text().replace('adapter = "heat2d"', 'command = ["false"]')
    study.write_text("\n".join(line for line in text.splitlines() if not line.startswith("options")))
    settings = [s for s in SMALL if "solver.options" not in s]
    done = subprocess.run(["true"], check=True)
    assert done.returncode == 0
    printed = penstock("record", study, "--out", path, *settings, "--set=solver.retries=0", code=1)
    assert f"there is no {path}; logs are in {path}.recording" in printed
    assert not path.exists()
