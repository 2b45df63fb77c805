"""Whole studies that several trainer ranks train together: accounted for as with one, whatever dies or changes meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w
import torch
from command import events, penstock, report, started
from native import Installed

from penstock_server.checkpoint import load_latest
from penstock_server.study import Schema
from penstock_server.trainer_rank.redistribution import parts_of
from penstock_server.validation import ValidationStore
from waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.slow]

HERE = Path(__file__).parent
STEPS = 20
PARAMETERS = ("initial", "left", "right", "bottom", "top")


def write_study(folder: Path, *, simulations: int = 20, pause: float = 0.0, **sections: Any) -> Path:
    """The heat equation on 16 x 16 points, 20 time steps each."""
    for module in ("paced_heat.py", "paced_training.py"):
        (folder / module).write_text((HERE.parent / module).read_text())
    study: dict[str, Any] = {
        "study": {"name": "ranks", "seed": 5},
        "parameters": {name: [100.0, 500.0] for name in PARAMETERS},
        "solver": {
            "adapter": "paced_heat:PacedHeat",
            "simulations": simulations,
            "validation_simulations": 3,
            "concurrency": 2,
            "options": {"points": 16, "steps": STEPS, "pause": pause},
        },
        "fields": {"T": {}},
        "buffer": {"capacity": 400, "watermark": 40},
        "model": {"hidden": [64, 64]},
        "training": {
            "batch_size": 16,
            "loss": "paced_training:paced_mse",
            "device": "cpu",
            "threads": 1,
            "checkpoint_every": "1 s",
        },
        "server": {"heartbeat": "500 ms", "server_timeout": "30 s", "client_timeout": "10 s"},
    }
    for name, section in sections.items():
        study[name] = study.get(name, {}) | section
    path = folder / "study.toml"
    path.write_text(tomli_w.dumps(study))
    return path


def accounted(out: Path, samples: int, ranks: int) -> dict[str, Any]:
    done = report(out)
    assert done["status"] == "finished", done["message"]
    figures = done["samples"]
    assert figures["expected"] == figures["unique"] == figures["trained_unique"] == samples
    assert figures["received"] - figures["duplicates_dropped"] == samples
    assert done["simulations"]["failed"] == 0
    assert done["training"]["ranks"] == ranks
    return done


def test_one_two_and_four_ranks_account_for_the_same_and_learn_the_same(tmp_path: Path) -> None:
    study = write_study(tmp_path, training={"loss": "mse", "min_batches": 600, "checkpoint_every": "60 s"})
    done = {}
    for ranks in (1, 2, 4):
        out = tmp_path / f"ranks-{ranks}"
        penstock("run", study, "--out", out, "--set", f"training.ranks={ranks}")
        done[ranks] = accounted(out, 20 * STEPS, ranks)
        assert done[ranks]["validation"]["samples"] == 3 * STEPS
        assert load_latest(out / "checkpoints").ranks == ranks
    for ranks in (2, 4):
        # The batch is that of all ranks: as many batches, as many presentations, as good a model.
        assert done[ranks]["training"]["batches"] == pytest.approx(done[1]["training"]["batches"], rel=0.1)
        assert done[ranks]["samples"]["presentations"] == pytest.approx(done[1]["samples"]["presentations"], rel=0.1)
        assert done[ranks]["validation"]["relative_l2"] < 1.5 * done[1]["validation"]["relative_l2"]
        assert done[ranks]["buffer"]["capacity"] == done[1]["buffer"]["capacity"]


def test_two_ranks_train_one_ensemble(tmp_path: Path) -> None:
    study = write_study(tmp_path, training={"loss": "mse", "members": 3, "ranks": 2})
    penstock("run", study, "--out", tmp_path / "run")
    done = accounted(tmp_path / "run", 20 * STEPS, 2)
    assert done["validation"]["samples"] == 3 * STEPS
    assert len(set(done["validation"]["members"]["relative_l2"])) == 3


def test_a_stopped_study_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["run", write_study(tmp_path, simulations=40, pause=0.03), "--out", out, "--set", "training.ranks=2"]
    for incarnation, ranks in enumerate((3, 1), start=1):
        process = started(*command)
        wait_for(lambda n=incarnation: len(events(out, "started")) == n)
        since = len(events(out, "checkpoint"))
        wait_for(lambda n=since: len(events(out, "checkpoint")) >= n + 2)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, printed
        assert report(out)["status"] == "stopped"
        command = ["resume", out, "--set", f"training.ranks={ranks}"]
    penstock(*command)
    done = accounted(out, 40 * STEPS, ranks=1)
    assert done["incarnations"] == 3
    assert done["validation"]["samples"] == 3 * STEPS


def test_a_killed_solver_hangs_no_rank_and_a_killed_rank_is_started_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = write_study(tmp_path, simulations=40, pause=0.04, training={"ranks": 2})
    process = started("run", study, "--out", out)
    wait_for(lambda: len(events(out, "checkpoint")) >= 2)
    worker = next(
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "penstock_solvers.worker" in " ".join(child.cmdline())
    )
    worker.kill()
    wait_for(lambda: events(out, "client_lost"))
    since = len(events(out, "checkpoint"))
    wait_for(lambda: len(events(out, "checkpoint")) >= since + 2)  # steps go on
    os.kill(events(out, "started")[-1]["ranks"][1], signal.SIGKILL)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    accounted(out, 40 * STEPS, ranks=2)
    assert [event["kind"] for event in events(out, "restarted")] == ["rank"]


def test_a_rank_whose_only_solver_waits_for_another_rank_does_not_stop_the_study(tmp_path: Path) -> None:
    """Whole simulations go to one rank in turn, and a buffer holds less than one: while it is full, the other rank has nothing."""
    study = write_study(
        tmp_path,
        simulations=8,
        solver={"concurrency": 1},
        samples={"window": 2},
        buffer={"policy": "fifo", "capacity": 20, "watermark": 0, "credit": "16 KiB"},
        training={"ranks": 2, "batch_size": 4},
    )
    data = study.read_text()
    assert "concurrency = 1" in data
    penstock("run", study, "--out", tmp_path / "run")
    accounted(tmp_path / "run", 8 * (STEPS - 1), ranks=2)


@pytest.mark.parametrize(("language", "solver_ranks"), [("c", 4), ("fortran", 3)])
def test_solver_ranks_into_trainer_ranks_give_the_serial_fields_exactly(
    installed: Installed, tmp_path: Path, language: str, solver_ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(installed.prefix / "lib"))
    study = installed.example(f"heat_{language}_mpi") / "study.toml"
    small = {
        "solver.command": '["./heat", "12", "8"]',
        "solver.simulations": "2",
        "solver.validation_simulations": "2",
        "solver.concurrency": "1",
        "buffer.watermark": "2",
        "buffer.capacity": "100",
        "training.batch_size": "4",
    }
    held = []
    for name, ranks, trainers, engine in (("serial", 1, 1, "inline"), ("parallel", solver_ranks, 2, "ray")):
        changes = small | {"solver.ranks": str(ranks), "training.ranks": str(trainers), "study.engine": engine}
        out = tmp_path / name
        penstock("run", study, "--out", out, *[part for item in changes.items() for part in ("--set", "=".join(item))])
        accounted(out, 2 * 8, trainers)
        held.append(held_out(out))
    serial, parallel = held
    assert serial.keys() == parallel.keys()
    assert len(serial) == 2 * 8
    for key in serial:
        assert torch.equal(serial[key], parallel[key]), key


def held_out(out: Path) -> dict[tuple[int, int], torch.Tensor]:
    """The held-out fields that all ranks of a finished study hold, by simulation and time step."""
    checkpoint = load_latest(out / "checkpoints")
    spec = Schema.from_state_dict(checkpoint.parts["schema"]).spec
    store = ValidationStore(spec)
    store.load_state_dict(parts_of(checkpoint, 0, 1, spec, 0)("validation"))
    return {
        (simulation, step): store.time_step(simulation, step)[1].clone()
        for simulation, steps in store.simulations().items()
        for step in steps
    }
