"""`penstock submit` and `penstock cancel`: from a login node, a study is submitted, followed, and ended early."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from penstock.run import EXIT_CODES, hold, open_run, outcome, prepare, read_state
from penstock.slurm.commands import Slurm, SlurmError
from penstock.slurm.profile import Profile
from penstock.slurm.scripts import FOLDER, SERVER, expect_plain, jobs_name, render, write_scripts
from penstock.slurm.state import StudyJobs, expect_no_jobs, read_jobs
from penstock.slurm.waiting import submit_waiting
from penstock.study import StudyError
from penstock_client import PenstockError
from penstock_server.study import Study

LOOK = 2.0  # seconds between two looks at the queue while following
LINE_SECONDS = 10.0  # between two lines
GONE = 3  # looks in a row without a job: the job in waiting may start some time after the server's job has died


def check_profile(profile: Profile) -> list[str]:
    """Ask Slurm whether it would take the jobs of a profile; nothing is submitted.

    Returns:
        A line for each problem.

    Raises:
        SlurmError: Slurm cannot be asked on this machine.
    """
    problems = []
    slurm = Slurm()
    slurm.jobs("penstock")  # raises where Slurm does not answer at all
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
    """Submit the server's job of a study.

    Args:
        study: checked.
        profile: of the cluster.
        directory: the run directory, which all nodes must see.
        resume: the directory holds the study already; continue it.
        log: called with a line about each job.

    Raises:
        StudyError: the run directory holds something already (or, with `resume`, the study has jobs), or Slurm would
            refuse the jobs.
        SlurmError: Slurm cannot be asked.
    """
    directory = directory.absolute()
    expect_plain(directory)
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
    """Follow a submitted study until none of its jobs is left.

    Args:
        directory: the run directory.
        log: called with a line about the state of the study now and then.

    Returns:
        The exit code: 0 finished, 1 stopped or failed.

    Raises:
        PenstockError: the study left no report.
    """
    logged, logged_at, gone = "", float("-inf"), 0
    while gone < GONE:
        jobs = read_jobs(directory) or StudyJobs()
        state = read_state(directory, jobs)
        gone = 0 if jobs.any or jobs.unknown else gone + 1
        line = "; ".join(state.lines())
        due = time.monotonic() - logged_at >= LINE_SECONDS or logged.split(";")[0] != line.split(";")[0]
        if line != logged and due:
            log(line)
            logged, logged_at = line, time.monotonic()
        if gone == 1 and outcome(directory) == "finished":
            break
        time.sleep(LOOK)
    status = outcome(directory)
    if not status:
        raise PenstockError(
            f"{directory}: {jobs.line()}, and there is no report: the server's log in {directory / FOLDER} tells why"
        )
    if status != "finished":
        log(f"continue it with: penstock submit {directory}")
    return EXIT_CODES[status]


def cancel_study(directory: Path, log: Callable[[str], None]) -> None:
    """Stop a submitted study with a checkpoint; no job of it is left when this returns.

    Args:
        directory: the run directory.
        log: called with a line about each job.

    Raises:
        StudyError: the study was never submitted.
        SlurmError: Slurm cannot be asked, or a job does not end.
    """
    slurm, name = Slurm(), jobs_name(directory)
    if not name:
        raise StudyError(
            [f"{directory}: was not submitted to Slurm; expected the run directory of a `penstock submit`"]
        )
    signalled: set[str] = set()
    patience = 2 * open_run(directory).timeouts.stop  # for the last checkpoint, and for the jobs to end
    deadline = time.monotonic() + patience
    while jobs := [job for job in slurm.jobs(f"{name}-server", f"{name}-workers") if not job.ended]:
        late = time.monotonic() > deadline
        servers = [job for job in jobs if job.name.endswith("-server")]
        running = [job.id for job in servers if job.state == "RUNNING" and job.id not in signalled]
        # The job in waiting first, which would continue the study. Of the server's job only the shell is signalled:
        # a plain scancel would kill its processes at once.
        slurm.cancel([job.id for job in servers if job.waits])
        slurm.cancel(running, "--batch", "--signal=TERM")
        if running:
            log(f"job {', '.join(running)}: stopping with a checkpoint")
        signalled.update(running)
        if late or not servers:
            slurm.cancel([job.id for job in jobs])
        if time.monotonic() > deadline + patience:
            raise SlurmError(f"{', '.join(job.id for job in jobs)}: cancelled, but still there; see `squeue`")
        time.sleep(LOOK / 2)
    log(f"no job is left; continue it with: penstock submit {directory}")
