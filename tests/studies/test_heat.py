"""Whole studies of the heat equation from the command line, undisturbed and with real signals."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from command import EXAMPLES, events, penstock, report, started
from paced_study import write_study

from waiting import PATIENCE, busy, wait_for

pytestmark = pytest.mark.slow

HEAT = EXAMPLES / "heat" / "study.toml"
SMALL = [
    arg
    for setting in (
        "solver.simulations=20",
        "solver.validation_simulations=3",
        "solver.options.points=24",
        "solver.options.steps=30",
        "buffer.capacity=200",
        "buffer.watermark=50",
        "buffer.presentations_per_sample=4",
    )
    for arg in ("--set", setting)
]
ENDLESS = ["--set", "training.min_batches=100000000"]


def accounted(out: Path) -> None:
    samples = report(out)["samples"]
    assert samples["expected"] == samples["unique"] == samples["trained_unique"] == 20 * 30
    assert samples["rejected"] == 0


def test_the_demo_study_learns_and_its_commands_show_it(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    penstock("check", HEAT)
    printed = penstock("run", HEAT, "--out", out)
    done = report(out)
    assert done["status"] == "finished"
    assert done["samples"]["expected"] == done["samples"]["unique"] == done["samples"]["trained_unique"] == 200 * 50
    assert done["samples"]["rejected"] == done["samples"]["duplicates_dropped"] == 0
    assert done["validation"]["relative_l2"] <= 0.03
    assert "relative L2" in printed
    assert json.loads(penstock("report", out, "--json")) == done
    assert "finished" in penstock("status", out)
    penstock("plot", out)
    assert all(path.stat().st_size > 10_000 for path in (out / "plots").glob("*.png"))
    assert (out / "plots" / "training.png").exists()
    values = [f"--set={name}={value}" for name, value in
              (("initial", 300), ("left", 300), ("right", 300), ("bottom", 300), ("top", 300))]  # fmt: skip
    penstock("predict", out, *values, "--step", "20", "--out", tmp_path / "p.npz")
    import numpy as np

    with np.load(tmp_path / "p.npz") as prediction:
        field = prediction["T"]
    assert field.shape == (1, 64, 64, 1)
    assert abs(float(field.mean()) - 300) < 15  # a plate as warm as its walls stays as it is
    assert "outside" in penstock(
        "predict", out, *values[:-1], "--set=top=900", "--step", "20", "--out", tmp_path / "q.npz"
    )
    penstock("export", out)
    assert json.loads((out / "model" / "card.json").read_text())


def test_a_worker_killed_in_mid_study_costs_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = started("run", HEAT, "--out", out, *SMALL, "--set", f"server.client_timeout={PATIENCE:.0f}")
    for killed in range(2):
        held = wait_for(lambda k=killed: len(events(out, "assigned")) > 3 + 5 * k and events(out, "assigned")[-1])
        os.kill(held["pid"], signal.SIGKILL)
        wait_for(lambda k=killed: len(events(out, "client_lost")) > k)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    accounted(out)
    assert report(out)["simulations"]["failed"] == 0


def test_a_frozen_worker_is_given_up_and_its_simulation_run_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = started(
        "run", HEAT, "--out", out, *SMALL, "--set", "server.client_timeout=3", "--set", "solver.concurrency=2"
    )
    held = wait_for(lambda: len(events(out, "assigned")) > 3 and events(out, "assigned")[-1])
    os.kill(held["pid"], signal.SIGSTOP)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    accounted(out)
    assert not psutil.pid_exists(held["pid"])


def test_training_on_cores_of_its_own_is_alone_there_and_nobody_comes_before_another(tmp_path: Path) -> None:
    """Ray's default would have everything of the server yield to solvers."""
    out = tmp_path / "run"
    process = started("run", HEAT, "--out", out, *SMALL, *ENDLESS, "--set", "training.own_cores=true")
    wait_for(lambda: len(events(out, "finished")) >= 3)
    own = max(os.sched_getaffinity(0))
    allowed: dict[str, set[frozenset[int]]] = {"training": set(), "worker": set()}
    for one in psutil.Process(process.pid).children(recursive=True):
        kind = "worker" if "penstock_solvers.worker" in one.cmdline() else "training"
        allowed[kind] |= {frozenset(os.sched_getaffinity(thread.id)) for thread in one.threads()}
        assert one.nice() == psutil.Process().nice()
    assert frozenset({own}) in allowed["training"]
    assert allowed["worker"]
    assert all(own not in cores for cores in allowed["worker"])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_stops_with_a_checkpoint_and_can_be_resumed(
    number: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = started("run", HEAT, "--out", out, *SMALL, *ENDLESS)
    wait_for(lambda: len(events(out, "finished")) >= 8)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) > 3
    begun = time.monotonic()
    if number is signal.SIGINT:
        os.killpg(process.pid, number)  # the whole group, as Ctrl-C on a terminal does
    else:
        process.send_signal(number)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - begun < 10 * busy()
    assert process.returncode == 1, printed
    assert f"penstock resume {out}" in printed
    gone, alive = psutil.wait_procs(family, timeout=PATIENCE)
    assert alive == []
    assert len(gone) == len(family)
    done = report(out)
    assert done["status"] == "stopped"
    assert done["samples"]["unique"] == done["samples"]["expected"]
    assert list((out / "checkpoints").iterdir())
    study = out / "study.toml"
    study.write_text(study.read_text().replace("min_batches = 100000000", "min_batches = 0"))
    penstock("resume", out)
    accounted(out)
    assert report(out)["incarnations"] == 2


def test_a_worker_from_elsewhere_takes_its_share(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = started("run", HEAT, "--out", out, *SMALL, "--set", "solver.simulations=40")
    wait_for(lambda: events(out, "assigned"))
    helper = started("worker", "--connect", out / "connect.json")
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    helper.communicate(timeout=PATIENCE)
    assert report(out)["simulations"]["finished"] == 43
    assert helper.pid in {event["pid"] for event in events(out, "assigned")}


def test_ray_and_inline_account_for_the_same_samples(tmp_path: Path) -> None:
    reports = {}
    for engine in ("ray", "inline"):
        out = tmp_path / engine
        penstock("run", HEAT, "--out", out, *SMALL, "--set", f"study.engine={engine}")
        accounted(out)
        reports[engine] = report(out)
    for key in ("expected", "received", "unique", "trained_unique", "rejected"):
        assert reports["ray"]["samples"][key] == reports["inline"]["samples"][key]
    assert reports["ray"]["simulations"] == reports["inline"]["simulations"]


def test_a_second_server_on_the_same_run_directory_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = started("run", HEAT, "--out", out, *SMALL, *ENDLESS)
    try:
        wait_for(lambda: events(out, "assigned"))
        assert str(out) in penstock("run", HEAT, "--out", out, *SMALL, code=2)
        assert "running" in penstock("status", out)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)


def test_a_users_own_solver_and_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    penstock("run", EXAMPLES / "custom_solver" / "study.toml", "--out", out)
    done = report(out)
    assert done["samples"]["expected"] == done["samples"]["unique"] == done["samples"]["trained_unique"] == 100 * 40
    assert done["validation"]["relative_l2"] <= 0.1


def test_when_training_ends_before_production_nothing_more_is_given_out(tmp_path: Path) -> None:
    """Not even what workers return then, while the server still validates and exports."""
    out = tmp_path / "run"
    study = write_study(tmp_path, 0.005, simulations=2000, concurrency=2, training={"max_batches": 60})
    penstock("run", study, "--out", out)
    done = report(out)
    assert (done["status"], done["message"]) == ("finished", "max_batches reached")
    assert done["simulations"]["restarted"] == 0
    returned = [event["simulation"] for event in events(out, "returned")]
    assert len(returned) == len(set(returned)) <= 2
