"""The profile, what is made of it, and what is read from Slurm: without a Slurm."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from command import wait_for

from penstock.slurm.address import node_address
from penstock.slurm.commands import Job, Slurm, SlurmError, parse_job, parse_states
from penstock.slurm.profile import JobSection, Profile, load_profile, write_profile
from penstock.slurm.scripts import SERVER, WORKERS, jobs_name, render, slurm_time, used_profile, write_scripts
from penstock.slurm.state import StudyJobs
from penstock.study_errors import StudyError

PAGE = (Path(__file__).parents[2] / "docs" / "slurm.md").read_text()
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
        ({"server": {"nodes": 2}}, "[server] nodes = 2: expected a number less than or equal to 1; for example nodes = 1"),
        ({"workers": {"signal": "1 h"}}, "[workers] signal = 3600 s with time = 1800 s: expected a signal before the end; raise time"),
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


WORKER = """#!/bin/bash
echo "started $$" >> {log}
trap 'echo handed back >> {log}; exit 0' TERM
for i in $(seq 600); do sleep 0.1; done
"""


def test_a_job_whose_time_is_up_ends_each_of_its_workers(tmp_path: Path) -> None:
    worker, log = tmp_path / "worker", tmp_path / "log"
    worker.write_text(WORKER.format(log=log))
    worker.chmod(0o755)
    (tmp_path / "connect.json").write_text("{}")
    text = render("x", "x", profile(tmp_path, slurm={"python": str(worker)}, workers={"each": 2}), tmp_path)[WORKERS]
    script = tmp_path / WORKERS
    script.write_text(text)
    job = subprocess.Popen(["bash", script])
    wait_for(lambda: log.is_file() and log.read_text().count("started") == 2)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(20) == 0
    assert log.read_text().count("handed back") == 2


def test_a_job_ends_with_the_code_of_a_worker_that_failed(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/bash\nexit 3\n")
    worker.chmod(0o755)
    (tmp_path / "connect.json").write_text("{}")
    text = render("x", "x", profile(tmp_path, slurm={"python": str(worker)}), tmp_path)[WORKERS]
    assert subprocess.run(["bash"], input=text, text=True, check=False).returncode == 3
