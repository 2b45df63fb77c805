"""The profile, what is made of it, and what is read from Slurm: without a Slurm."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from penstock.slurm.address import node_address
from penstock.slurm.commands import Job, Slurm, SlurmError, parse_job, parse_states
from penstock.slurm.launcher import SlurmLauncher, WorkerArray
from penstock.slurm.profile import JobSection, Profile, WorkerJobs, load_profile, write_profile
from penstock.slurm.scripts import SERVER, WORKER, WORKERS, jobs_name, render, slurm_time, used_profile, write_scripts
from penstock.slurm.state import StudyJobs
from penstock.slurm.steps import step_command
from penstock.study import StudyError
from penstock.workers import StudyLink
from penstock_solvers.introduction import introduced, introduction
from waiting import PATIENCE, wait_for

PAGE = (Path(__file__).parents[3] / "docs" / "slurm.md").read_text()
SMALLEST = {"server": {"time": "1 h"}, "workers": {"time": "30 min"}}


def profile(folder: Path, **tables: dict[str, Any]) -> Profile:
    file = folder / "cluster.toml"
    names = [*SMALLEST, *(name for name in tables if name not in SMALLEST)]
    file.write_text(tomli_w.dumps({name: {**SMALLEST.get(name, {}), **tables.get(name, {})} for name in names}))
    return load_profile(file)


def page_profile(folder: Path) -> Profile:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (folder / "page.toml").write_text(blocks[0])
    return load_profile(folder / "page.toml")


def test_the_page_has_one_complete_profile(tmp_path: Path) -> None:
    page_profile(tmp_path)
    written = set(re.findall(r"^(\w+) = ", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0], re.MULTILINE))
    known = {key for section in Profile.model_fields.values() for key in section.annotation.model_fields}  # type: ignore[union-attr]
    assert written == known


@pytest.mark.parametrize("name", ["a\nid>pwned", 'a" --wrap="id', "back\\slash", "bell\a"])
def test_a_path_that_would_end_an_sbatch_line_is_refused(name: str, tmp_path: Path) -> None:
    directory = tmp_path / name
    directory.mkdir()
    with pytest.raises(StudyError, match=r"which a batch script cannot hold in a path: .* choose another --out"):
        write_scripts("heat", page_profile(tmp_path), directory)
    assert list(directory.iterdir()) == []


def test_scripts_of_the_page_s_profile(tmp_path: Path) -> None:
    scripts = render("heat", "penstock-heat-1", page_profile(tmp_path), Path("/shared/my 50% run"))
    for line in (
        "#SBATCH --job-name=penstock-heat-1-server",
        '#SBATCH --output="/shared/my 50%% run/slurm/server-%j.log"',
        "#SBATCH --time=0-12:00:00",
        "#SBATCH --account=project42",
        "#SBATCH --partition=gpu",
        "#SBATCH --qos=normal",
        "#SBATCH --mem=65536M",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --mail-type=FAIL",
        "#SBATCH --constraint=nvlink",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --signal=B:USR1@300",
        "#SBATCH --requeue",
        "module load openmpi/5 || exit",
        "export OMP_PLACES=cores",
        "exec apptainer exec --nv /shared/penstock.sif /shared/venvs/penstock/bin/python -m penstock.main slurm-server "
        "'/shared/my 50% run'",
    ):
        assert line in scripts[SERVER].splitlines(), line
    assert "#SBATCH --partition=compute" in scripts[WORKERS].splitlines()
    assert "--gpus" not in scripts[WORKERS]
    for text in scripts.values():
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        lines = text.splitlines()
        assert max(i for i, line in enumerate(lines) if line.startswith("#SBATCH")) < lines.index(
            "module load openmpi/5 || exit"
        )


TOGETHER = {
    "server": {"time": "2 h", "memory": "8 GiB", "cpus": 4},
    "workers": {"start": "together", "count": 3, "each": 2},
}


def together(folder: Path, **workers: Any) -> Profile:
    file = folder / "together.toml"
    file.write_text(tomli_w.dumps({**TOGETHER, "workers": {**TOGETHER["workers"], "memory": "3 GiB", **workers}}))
    return load_profile(file)


def test_one_job_of_server_and_workers(tmp_path: Path) -> None:
    scripts = render("heat", "penstock-heat-1", together(tmp_path, partition="compute"), Path("/shared/run"))
    assert scripts.keys() == {SERVER, WORKER}
    server, workers = scripts[SERVER].split("#SBATCH hetjob\n")
    for component, lines in (
        (server, ("--job-name=penstock-heat-1-server", "--mem-per-cpu=2048M", "--ntasks=1", "--cpus-per-task=4")),
        (workers, ("--job-name=penstock-heat-1-workers", "--mem-per-cpu=1536M", "--ntasks=6", "--partition=compute")),
    ):
        assert {f"#SBATCH {line}" for line in (*lines, "--time=0-02:00:00")} <= set(component.splitlines())
        assert "--mem=" not in component
    assert workers.rstrip().endswith(" -m penstock.main slurm-server /shared/run")
    for text in scripts.values():
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_one_job_of_server_and_workers_with_gpus(tmp_path: Path) -> None:
    _, workers = render("x", "x", together(tmp_path, each=1, gpus=2), tmp_path)[SERVER].split("#SBATCH hetjob\n")
    assert "#SBATCH --gpus-per-task=2" in workers.splitlines()


def test_scripts_of_a_profile_before_are_removed(tmp_path: Path) -> None:
    for used, files in ((together(tmp_path), {SERVER, WORKER}), (profile(tmp_path), {SERVER, WORKERS})):
        write_scripts("x", used, tmp_path)
        assert {path.name for path in (tmp_path / "slurm").iterdir()} == {*files, "profile.toml", "name"}
        assert used_profile(tmp_path) == used


def test_a_worker_in_the_server_s_job_is_a_step_of_the_second_component(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match=r'srun is not on the PATH: .* use \[workers\] start = "array"'):
        step_command("12", together(tmp_path).workers, tmp_path / WORKER)
    (tmp_path / "srun").touch(mode=0o755)
    words = step_command("12", together(tmp_path, cpus=2).workers, tmp_path / WORKER)
    assert {"--jobid=12", "--het-group=1", "--ntasks=1", "--cpus-per-task=2", "--mem-per-cpu=768M"} <= set(words)
    assert words[-2:] == ["bash", str(tmp_path / WORKER)]


def test_a_worker_is_known_by_the_first_line_of_its_log() -> None:
    log = f"a module was loaded\npenstock worker: {introduction()}\npenstock worker: process 3 on n2\nit says: process 4 on n2\n"
    assert introduced(log) == [(socket.gethostname(), os.getpid()), ("n2", 3)]


def test_a_container_has_a_python_of_its_own(tmp_path: Path) -> None:
    scripts = render("x", "x", profile(tmp_path, slurm={"container": "apptainer exec a.sif"}), tmp_path)
    assert "exec apptainer exec a.sif python3 -m penstock.main slurm-server" in scripts[SERVER]


def test_a_profile_is_kept_as_it_was_used_and_the_name_stays(tmp_path: Path) -> None:
    used = page_profile(tmp_path)
    name = write_scripts("my study", used, tmp_path)
    assert re.fullmatch(r"penstock-[A-Za-z0-9_.-]+-[0-9a-f]{8}", name)
    assert used_profile(tmp_path) == used
    assert write_scripts("my study", used, tmp_path) == jobs_name(tmp_path) == name
    write_profile(used, tmp_path / "again.toml")
    assert load_profile(tmp_path / "again.toml") == used


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({"slurm": {"pardition": "a"}}, "[slurm] pardition = \"a\": unknown key; did you mean 'partition'?"),
        ({"worker": {"count": 2}}, "[worker]: unknown table; did you mean 'workers'?"),
        ({"server": {"time": 0}}, '[server] time = 0: expected a number greater than 0; for example time = "4 h"'),
        ({"workers": {"time": "12:00"}}, '[workers] time = "12:00": expected a number followed by one of ms, s, min, h, d'),
        ({"server": {"nodes": 0}}, "[server] nodes = 0: expected a number greater than or equal to 1; for example nodes = 1"),
        ({"workers": {"signal": "1 h"}}, "[workers] signal = 3600 s with time = 1800 s: expected a signal before the end; raise time"),
        ({"workers": {"start": "apart"}}, '[workers] start = "apart": expected one of "array", "together"'),
        ({"workers": {"start": "together"}}, '[workers] time = 1800 s with start = "together": expected the server\'s, 3600 s'),
        ({"workers": {"start": "together", "time": "1 h", "tasks": 2}}, '[workers] tasks = 2 with start = "together": expected 1'),
        ({"workers": {"start": "together", "time": "1 h", "memory": "1 GiB"}}, "with memory for one of server and workers"),
        ({"workers": {"start": "together", "time": "1 h", "each": 2, "gpus": 1}}, "[workers] each = 2 with start = \"together\" and gpus"),
        ({"slurm": {"environment": ["a\nb"]}}, "environment holds a line break: expected one line each"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_profile_is_said(tmp_path: Path, tables: dict[str, Any], line: str) -> None:
    with pytest.raises(StudyError) as caught:
        profile(tmp_path, **tables)
    assert any(
        problem.startswith(f"{tmp_path / 'cluster.toml'}: ") and line in problem for problem in caught.value.problems
    ), caught.value.problems


def test_missing_tables_and_files(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(StudyError, match=r"\[workers\]: missing table; add \[workers\] with count = 16"):
        load_profile(tmp_path / "empty.toml")
    (tmp_path / "no_time.toml").write_text(tomli_w.dumps({**SMALLEST, "workers": {"count": 2}}))
    with pytest.raises(StudyError, match=r'\[workers\] time: missing; add time = "2 h"'):
        load_profile(tmp_path / "no_time.toml")
    with pytest.raises(StudyError, match="cannot read the profile"):
        load_profile(tmp_path / "none.toml")


@pytest.mark.parametrize(("text", "seconds"), [("4 h", 14400), ("00:30:00", 1800), ("1-02:00:01", 93601), (90, 90)])
def test_times_are_given_in_either_way(text: object, seconds: float) -> None:
    job = JobSection.model_validate({"time": text, "signal": 1})
    assert job.time == seconds


def test_times_are_written_as_slurm_has_them() -> None:
    assert [slurm_time(s) for s in (59.9, 3600, 93601)] == ["0-00:00:59", "0-01:00:00", "1-02:00:01"]


def test_lines_of_squeue_and_sacct() -> None:
    assert parse_job("14_3|penstock-a-workers|RUNNING|1-00:01:05|n2|None") == Job(
        "14_3", "penstock-a-workers", "RUNNING", 86465, "n2", "None"
    )
    waiting = parse_job("15|a-server|PENDING|0:00||BeginTime")
    assert (waiting.waits, waiting.ended, waiting.seconds) == (True, False, 0)
    assert parse_states("12_0|CANCELLED by 0\n12_1|OUT_OF_ME+\n12_2|COMPLETED\n") == {
        "12_0": "CANCELLED",
        "12_1": "OUT_OF_ME",
        "12_2": "COMPLETED",
    }


def test_a_line_of_squeue_that_cannot_be_read_is_an_answer_that_slurm_owes() -> None:
    """Slurm is asked again, as when it does not answer at all."""
    with pytest.raises(SlurmError, match=r"squeue printed 'slurm_load_jobs error': expected a line of the form %i"):
        parse_job("slurm_load_jobs error")
    assert parse_job("15|a|PENDING|INVALID||x|y-z").seconds == 0


class Broken(Slurm):
    """A Slurm whose answers cannot be used."""

    def jobs(self, *names: str) -> list[Job]:
        raise ValueError("no such state")


def test_an_error_in_the_launcher_itself_ends_the_study(tmp_path: Path) -> None:
    failures: list[str] = []
    study = StudyLink(wanted_workers=lambda: 1, finished_simulations=lambda: 0, fail=failures.append)
    array = WorkerArray("x", WorkerJobs(time=60.0, signal=1.0), tmp_path / WORKERS, tmp_path, poll=0.1)
    SlurmLauncher(Broken(), array, study, lambda _: None).start()
    wait_for(lambda: failures)
    assert failures == ["jobs of workers cannot be kept running: ValueError: no such state"]


def test_components_of_one_job() -> None:
    server, workers = (
        parse_job(f"12+{i}|penstock-a-{name}|RUNNING|0:05|n{i}|None") for i, name in enumerate(("server", "workers"))
    )
    assert (server.id, server.whole, workers.id, workers.whole) == ("12", "12", "12+1", "12")
    assert StudyJobs(server, together=True).line() == "jobs: server 12 running on n0; workers: in the same job"


def test_jobs_in_a_line() -> None:
    assert StudyJobs().line() == "jobs: none"
    assert StudyJobs(unknown="squeue failed").line() == "jobs: unknown: squeue failed"
    server = Job("9", "a-server", "PENDING", 0, "", "Resources")
    assert (
        StudyJobs(server, waiting=True).line()
        == "jobs: server 9 pending (Resources), another in waiting; workers: none"
    )


def test_without_slurm_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="squeue is not on the PATH"):
        Slurm().jobs("a")


def test_an_interface_has_an_address_or_is_refused() -> None:
    assert node_address(Slurm(), "n1", "lo") == "127.0.0.1"
    with pytest.raises(StudyError, match=r'\[server\] interface = "no0": no such network .* there are .*lo'):
        node_address(Slurm(), "n1", "no0")


STUBBORN = """#!/bin/bash
echo "started $$" >> {log}
trap 'echo handed back >> {log}; exit 0' TERM
for i in $(seq 600); do sleep 0.1; done
"""


def test_a_job_whose_time_is_up_ends_each_of_its_workers(tmp_path: Path) -> None:
    worker, log = tmp_path / "worker", tmp_path / "log"
    worker.write_text(STUBBORN.format(log=log))
    worker.chmod(0o755)
    (tmp_path / "connect.json").write_text("{}")
    text = render("x", "x", profile(tmp_path, slurm={"python": str(worker)}, workers={"each": 2}), tmp_path)[WORKERS]
    script = tmp_path / WORKERS
    script.write_text(text)
    job = subprocess.Popen(["bash", script])
    wait_for(lambda: log.is_file() and log.read_text().count("started") == 2)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(PATIENCE) == 0
    assert log.read_text().count("handed back") == 2


def test_a_job_ends_with_the_code_of_a_worker_that_failed(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/bash\nexit 3\n")
    worker.chmod(0o755)
    (tmp_path / "connect.json").write_text("{}")
    text = render("x", "x", profile(tmp_path, slurm={"python": str(worker)}), tmp_path)[WORKERS]
    assert subprocess.run(["bash"], input=text, text=True, check=False).returncode == 3
