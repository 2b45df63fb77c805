"""`penstock submit` and `penstock cancel`: from a login node, a study's job is submitted, followed, and ended early."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from penstock.run import REPORT, hold, prepare, read_state
from penstock.run.run import EXIT
from penstock.slurm.commands import Slurm, SlurmError
from penstock.slurm.profile import Profile
from penstock.slurm.scripts import FOLDER, SERVER, jobs_name, render, write_scripts
from penstock.slurm.state import StudyJobs, expect_no_jobs, read_jobs
from penstock.slurm.waiting import submit_waiting
from penstock.study import StudyError
from penstock_client import PenstockError
from penstock_server.study import Study

LOOK = 2.0  # seconds between two looks at the queue while following
SAY_EVERY = 10.0  # seconds between two lines
GONE = 3  # looks in a row that find no job: a dead server's job has ended before the one in waiting may start
CANCEL_SECONDS = 120.0  # that a cancelled study has for its last checkpoint


def check_profile(profile: Profile) -> list[str]:
    """What Slurm says against the jobs of a profile, one line each; nothing is submitted. SlurmError: no Slurm here."""
    problems = []
    slurm = Slurm()
    slurm.jobs("penstock")  # whether it answers at all
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        scripts = render("check", "penstock-check", profile, Path(folder))
        for file in [file for file in scripts if file.endswith(".sbatch")]:
            (Path(folder) / file).write_text(scripts[file])
            try:
                slurm.submit(Path(folder) / file, "--test-only")
            except SlurmError as error:
                problems.append(f"[{file.split('.')[0]}] {error}; correct the profile")
    return problems


def submit_study(study: Study, profile: Profile, directory: Path, *, resume: bool, log: Callable[[str], None]) -> None:
    """Submit a study's server; its run directory must be seen by all nodes.

    Raises:
        StudyError: the run directory holds something already (or, with `resume`, the study has jobs), or Slurm would take no
            such jobs. SlurmError: Slurm cannot be asked.
    """
    directory = directory.absolute()
    if resume:
        expect_no_jobs(directory)
    if problems := check_profile(profile):
        raise StudyError(problems)
    with hold(directory):
        if not resume:
            prepare(study, directory)
        write_scripts(study.study.name, profile, directory)
    slurm = Slurm()
    try:
        job = slurm.submit(directory / FOLDER / SERVER)
    except SlurmError as error:
        raise SlurmError(f"{error}; when that is mended: penstock submit {directory}") from error
    what = "the server with its workers" if profile.together else "the server"
    log(f"submitted {what} (job {job}); its log will be {directory / FOLDER / f'server-{job}.log'}")
    if profile.together and profile.server.restarts:
        try:
            log(f"job {submit_waiting(slurm, directory, job, 1)} is in waiting, to go on if that one dies")
        except SlurmError as error:
            log(f"no other job goes on if it dies: {error}")


def follow(directory: Path, log: Callable[[str], None]) -> int:
    """Say how a submitted study goes until none of its jobs is left; returns the exit code: 0 finished, 1 stopped or failed."""
    said, said_at, gone = "", float("-inf"), 0
    while gone < GONE:
        jobs = read_jobs(directory) or StudyJobs()
        state = read_state(directory, jobs)
        gone = 0 if jobs.any or jobs.unknown else gone + 1
        line = "; ".join(state.lines())
        if line != said and (time.monotonic() - said_at >= SAY_EVERY or said.split(";")[0] != line.split(";")[0]):
            log(line)
            said, said_at = line, time.monotonic()
        if gone == 1 and _status(directory) == "finished":
            break
        time.sleep(LOOK)
    status = _status(directory)
    if not status:
        raise PenstockError(
            f"{directory}: {jobs.line()}, and no report is there: the server's log in {directory / FOLDER} tells why"
        )
    if status != "finished":
        log(f"continue it with: penstock submit {directory}")
    return EXIT[status]


def cancel_study(directory: Path, log: Callable[[str], None]) -> None:
    """Stop a submitted study with a checkpoint; no job of it is left when this returns.

    Raises:
        SlurmError: Slurm cannot be asked, or a job does not go.
    """
    slurm, name = Slurm(), jobs_name(directory)
    if not name:
        raise StudyError(
            [f"{directory}: was not submitted to Slurm; expected the run directory of a `penstock submit`"]
        )
    told: set[str] = set()
    deadline = time.monotonic() + CANCEL_SECONDS
    while jobs := [job for job in slurm.jobs(f"{name}-server", f"{name}-workers") if not job.ended]:
        late = time.monotonic() > deadline
        servers = [job for job in jobs if job.name.endswith("-server")]
        running = [job.id for job in servers if job.state == "RUNNING" and job.id not in told]
        # First what would go on in its place; then the server itself, its shell alone: Slurm's own way would kill its processes at once.
        slurm.cancel([job.id for job in servers if job.waits])
        slurm.cancel(running, "--batch", "--signal=TERM")
        if running:
            log(f"job {', '.join(running)}: stopping with a checkpoint")
        told.update(running)
        if late or not servers:
            slurm.cancel([job.id for job in jobs])
        if time.monotonic() > deadline + CANCEL_SECONDS:
            raise SlurmError(f"{', '.join(job.id for job in jobs)}: cancelled, but still there; see `squeue`")
        time.sleep(LOOK / 2)
    log(f"no job is left; continue it with: penstock submit {directory}")


def _status(directory: Path) -> str:
    report = directory / REPORT
    return str(json.loads(report.read_text())["status"]) if report.is_file() else ""
