"""Studies under a real Slurm, disturbed, cancelled and continued: each ends finished, accounted for, without a job left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from command import EXAMPLES, events, penstock, report, started
from slurm_cluster import queue, slurm
from slurm_studies import (
    QUICK_SIMULATIONS,
    SIMULATIONS,
    ends_well,
    in_mid_study,
    write_profile,
    write_quick_study,
    write_study,
)

from penstock.slurm.commands import Slurm
from penstock.slurm.launcher import SlurmLauncher, WorkerArray
from penstock.slurm.profile import WorkerJobs
from penstock.workers import StudyLink
from waiting import wait_for

FEW_SIMULATIONS = 8

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.usefixtures("slurm_commands", "nothing_left"),
]


def test_the_example_ends_finished_and_no_job_is_left(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("solver.simulations=12", "solver.validation_simulations=2", "solver.options.points=16")
    settings += ("buffer.capacity=400", "buffer.watermark=50", "buffer.presentations_per_sample=1")
    overrides = [word for setting in settings for word in ("--set", setting)]
    said = penstock(
        *("submit", EXAMPLES / "heat", "--scheduler", "slurm", "--profile", write_profile(tmp_path)),
        *("--out", out, *overrides),
    )
    assert queue() == {}
    found = report(out)
    assert (found["status"], found["incarnations"], found["simulations"]["finished"]) == ("finished", 1, 14)
    assert found["samples"]["expected"] == found["samples"]["trained_unique"] == 600
    assert "heat: finished (production ended)" in said
    assert {path.name for path in (out / "slurm").iterdir()} > {"server.sbatch", "workers.sbatch", "profile.toml"}
    assert "jobs: none (the last server's, " in penstock("status", out)
    assert "the study has finished; nothing is left to do" in penstock("submit", out)


def test_killed_and_cancelled_workers_and_a_drained_node_are_got_over(tmp_path: Path) -> None:
    out = tmp_path / "run"
    following = started("submit", write_study(tmp_path), "--profile", write_profile(tmp_path), "--out", out)
    in_mid_study(out)
    worker = psutil.Process(events(out, "client")[0]["pid"])
    killed = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format(**worker.environ())
    (cancelled,) = queue("-workers").keys() - {killed}
    worker.kill()
    slurm("scancel", cancelled)
    wait_for(lambda: len(queue("-workers")) == 2 and not {killed, cancelled} & queue("-workers").keys())

    slurm("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=test")
    slurm("scancel", *queue("-workers"))
    wait_for(lambda: list(queue("-workers").values()) == ["PENDING", "PENDING"])
    assert len(events(out, "finished")) < SIMULATIONS
    status = penstock("status", out)
    assert "slow: running\n" in status
    assert "workers: 2 pending" in status
    for command in ("resume", "submit"):
        assert f"wait, or stop them with `penstock cancel {out}`" in penstock(command, out, code=2)
    slurm("scontrol", "update", "NodeName=n2", "State=RESUME")
    said = ends_well(following, out)
    assert f"the workers' job {cancelled} on n2 ended: CANCELLED" in said


def test_the_job_of_a_frozen_worker_is_cancelled_and_replaced(tmp_path: Path) -> None:
    """The study has one worker only: it could not end otherwise."""
    out = tmp_path / "run"
    settings = ("--set", "server.client_timeout=3 s", "--set", f"solver.simulations={FEW_SIMULATIONS}")
    study, profile = write_quick_study(tmp_path), write_profile(tmp_path)
    following = started("submit", study, "--profile", profile, "--out", out, *settings)
    in_mid_study(out)
    worker = psutil.Process(events(out, "client")[0]["pid"])
    frozen = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format(**worker.environ())
    worker.suspend()
    said = ends_well(following, out, simulations=FEW_SIMULATIONS)
    assert f"has been silent or stuck for too long: its job {frozen} is cancelled and replaced" in said
    assert not worker.is_running()


def test_a_cancelled_server_goes_on_in_the_job_in_waiting(tmp_path: Path) -> None:
    out = tmp_path / "run"
    following = started("submit", write_study(tmp_path), "--profile", write_profile(tmp_path), "--out", out)
    in_mid_study(out)
    wait_for(lambda: events(out, "checkpoint"))
    server, waiting = sorted(queue("-server"), key=int)
    slurm("scancel", server)
    wait_for(lambda: queue("-server").get(waiting) == "RUNNING")
    said = ends_well(following, out, incarnations=2)
    assert f"job {waiting} is in waiting" in said
    assert f"job {waiting} on n1" in said


def test_when_its_time_is_up_it_goes_back_to_the_queue_and_a_cancelled_study_continues(tmp_path: Path) -> None:
    out = tmp_path / "run"
    profile = write_profile(tmp_path, server={"requeue": 2})
    said = penstock("submit", write_quick_study(tmp_path), "--profile", profile, "--out", out, "--detach")
    assert f"show its progress with: penstock status {out}" in said
    in_mid_study(out)
    (server,) = (id_ for id_, state in queue("-server").items() if state == "RUNNING")
    slurm("scancel", "--batch", "--signal=USR1", server)  # the signal that Slurm sends before the limit
    wait_for(lambda: queue("-server").get(server) == "PENDING")
    assert f"slow: waiting for its job {server} to start" in penstock("status", out)
    assert report(out)["status"] == "stopped"
    assert any((out / "checkpoints").iterdir())
    slurm("scontrol", "update", f"JobId={server}", "StartTime=now")  # Slurm lets a requeued job wait for two minutes
    in_mid_study(out, len(events(out, "finished")) + 1, incarnation=2)

    said = penstock("cancel", out)
    assert "stopping with a checkpoint" in said
    assert queue() == {}
    assert report(out)["status"] == "stopped"
    assert "slow: stopped after" in penstock("status", out)
    ends_well(started("submit", out), out, incarnations=3, simulations=QUICK_SIMULATIONS)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., SlurmLauncher]]:
    """Starts a launcher of jobs that run `body`; stopped at the end, with no job left."""
    launchers: list[SlurmLauncher] = []

    def start(
        body: str,
        count: int,
        wanted: Callable[[], int],
        log: Callable[[str], None],
        failed: Callable[[str], None],
    ) -> SlurmLauncher:
        script = tmp_path / "workers.sbatch"
        output = f'#SBATCH --output="{tmp_path}/worker-%A_%a.log"'
        script.write_text(f"#!/bin/bash\n#SBATCH --job-name=launched\n#SBATCH --mem=10M\n{output}\n{body}\n")
        jobs = WorkerJobs(time=600.0, count=count)
        array = WorkerArray("launched", jobs, script, tmp_path, poll=0.2)
        study = StudyLink(wanted_workers=wanted, finished_simulations=lambda: 0, fail=failed)
        launchers.append(SlurmLauncher(Slurm(), array, study, log))
        launchers[-1].start()
        return launchers[-1]

    yield start
    for launcher in launchers:
        launcher.stop()
    assert queue() == {}


def test_workers_that_die_at_once_end_the_study(launch: Callable[..., SlurmLauncher]) -> None:
    failures: list[str] = []
    launch("echo no licence; exit 7", 2, wanted=lambda: 9, log=lambda _: None, failed=failures.append)
    wait_for(lambda: failures)
    assert "4 jobs of workers in a row died within 20 s of their start; the last (" in failures[0]
    assert "no licence" in failures[0]


def test_jobs_that_nothing_is_left_for_are_cancelled_while_they_wait(launch: Callable[..., SlurmLauncher]) -> None:
    wanted, said = [50], list[str]()
    launch("exec sleep 600", 40, wanted=lambda: wanted[0], log=said.append, failed=said.append)
    wait_for(lambda: len(queue()) == 40 and "RUNNING" in queue().values())
    wanted[0] = 1
    wait_for(lambda: "PENDING" not in queue().values())
    assert "RUNNING" in queue().values()
    assert said[0].startswith("submitted 40 jobs of workers (array ")
    assert said[-1].endswith("waiting jobs of workers: nothing is left for them to do")


def test_slurm_is_asked_about_a_profile(tmp_path: Path) -> None:
    study, profile = write_study(tmp_path), write_profile(tmp_path, workers={"partition": "nowhere"})
    said = penstock("check", study, "--profile", profile, code=2)
    assert f"{profile}: [workers] sbatch --parsable --test-only" in said
    assert "invalid partition specified: nowhere" in said
    assert "nothing wrong found" in penstock("check", study, "--profile", write_profile(tmp_path))
    out = tmp_path / "run"
    refused = penstock(
        "submit", study, "--profile", write_profile(tmp_path, server={"time": "x"}), "--out", out, code=2
    )
    assert (
        '[server] time = "x": expected a number followed by one of ms, s, min, h, d; for example time = "4 h"'
        in refused
    )
    assert not out.exists()
