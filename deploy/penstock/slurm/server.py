"""What the server's job runs: the study, its workers in Slurm, and a job in waiting that continues if this one dies."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from penstock.run import LOGS, Display, open_run, outcome
from penstock.run.run import Placement, run_study
from penstock.run.signals import Signals
from penstock.slurm.address import node_address
from penstock.slurm.commands import Slurm, SlurmError
from penstock.slurm.launcher import SlurmLauncher, WorkerArray
from penstock.slurm.profile import Profile
from penstock.slurm.ray_nodes import network_of, ray_over_nodes
from penstock.slurm.scripts import FOLDER, WORKER, WORKERS, jobs_name, used_profile
from penstock.slurm.steps import step_launcher
from penstock.slurm.waiting import RESTART, submit_waiting
from penstock.study import StudyError
from penstock.study.check import check_study
from penstock.workers import Launcher, StudyLink
from penstock_server.study import TimeoutsSection

TIME_IS_UP = "SIGUSR1"  # what server.sbatch asks Slurm to send


def serve_study(directory: Path, display: Display) -> int:
    """Run a submitted study inside a job of Slurm, from its last checkpoint if there is one.

    First, another job is submitted that starts if this one ends badly: cancelled, killed, its node lost. It is taken
    back when the study has ended.

    Args:
        directory: the run directory.
        display: shows the progress.

    Returns:
        The exit code.

    Raises:
        StudyError: the study cannot run on this node.
        SlurmError: this process is not in a job, or Slurm cannot be asked.
    """
    directory = directory.absolute()
    study, profile = open_run(directory), used_profile(directory)
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job:
        raise SlurmError(f"SLURM_JOB_ID is not set: expected a job of Slurm; use `penstock submit {directory}`")
    server = _ServerJob(Slurm((profile.slurm.via or "").split()), profile, directory, job, study.timeouts, display.log)
    if outcome(directory) == "finished":  # the server before died after its report
        server.take_back()
        return 0
    server.submit_next()
    display.log(f"job {job} on {os.environ.get('SLURMD_NODENAME', 'this node')}")
    if problems := check_study(study):
        server.take_back()
        raise StudyError([f"{directory}: {problem}" for problem in problems])
    address = node_address(server.slurm, os.environ.get("SLURMD_NODENAME", ""), profile.server.interface)
    several = profile.server.nodes > 1
    host = network_of(address) if several else address
    study = study.model_copy(update={"server": study.server.model_copy(update={"host": host})})
    signals = Signals()
    with ExitStack() as stack:
        cores, ray_address = _cores(), None
        if several:
            each = profile.server.cpus if cores is None else cores
            log = directory / FOLDER / f"ray-{job}.log"
            ray_address = stack.enter_context(ray_over_nodes(study, profile, address, job=job, cores=each, log=log))
            cores = each * profile.server.nodes
        where = Placement(ray_address, server.launcher, cores)
        code = run_study(study, directory, display, resume=True, where=where, signals=signals)
    server.end(outcome(directory), signals.received)
    return code


class _ServerJob:
    """This job, the job in waiting, and the jobs of workers.

    Args:
        slurm: runs Slurm's commands.
        profile: of the cluster.
        directory: the run directory.
        job: id of this job.
        timeouts: the study's [timeouts].
        log: called with a line about each event.
    """

    def __init__(
        self,
        slurm: Slurm,
        profile: Profile,
        directory: Path,
        job: str,
        timeouts: TimeoutsSection,
        log: Callable[[str], None],
    ) -> None:
        self.slurm, self._timeouts = slurm, timeouts
        self._profile, self._directory, self._job, self._log = profile, directory, job, log
        self._name = jobs_name(directory)
        self._restart = int(os.environ.get(RESTART, 0))

    def launcher(self, study: StudyLink) -> Launcher:
        """Make the launcher of workers; their scripts know where connect.json is."""
        workers, scripts, logs = self._profile.workers, self._directory / FOLDER, self._directory / LOGS
        if self._profile.together:
            return step_launcher(self._job, workers, scripts / WORKER, logs, study, self._timeouts, self._log)
        array = WorkerArray(
            f"{self._name}-workers", workers, scripts / WORKERS, logs, self._profile.slurm.poll, self._timeouts
        )
        return SlurmLauncher(self.slurm, array, study, self._log)

    def submit_next(self) -> None:
        """Submit the job in waiting, unless it is there or [server] restarts are used up."""
        if self._restart >= self._profile.server.restarts:
            self._log(f"[server] restarts = {self._profile.server.restarts}: no other job goes on if this one dies")
            return
        if self._profile.together and not self._restart:
            return  # `penstock submit` has done it, since jobs may not be allowed to submit jobs
        try:
            if self._others("server"):
                return  # it was submitted before this job went back to the queue
            following = submit_waiting(self.slurm, self._directory, self._job, self._restart + 1)
        except SlurmError as error:
            self._log(f"no other job goes on if this one dies: {error}")
            return
        self._log(f"job {following} is in waiting, to go on if this one dies")

    def end(self, status: str, signal: str) -> None:
        """Decide what follows the end of this job.

        Args:
            status: in the study's report.
            signal: that ended the study; "" where none did.
        """
        requeued = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        if status == "finished" or not signal:
            self.take_back()
        elif signal != TIME_IS_UP:
            following = ", ".join(self._others("server"))
            self._log(
                f"the study goes on in job {following}"
                if following
                else f"continue it with: penstock submit {self._directory}"
            )
        elif requeued < self._profile.server.requeue:
            self._log(f"the time is up: back to the queue ({requeued + 1} of {self._profile.server.requeue} times)")
            self.slurm.requeue(self._job)
        else:
            self._log(f"the time is up; continue with: penstock submit {self._directory}")
            self.take_back()

    def take_back(self) -> None:
        """Cancel the job in waiting and leftover jobs of workers: nothing is left to be done."""
        try:
            self.slurm.cancel(self._others("server", "workers"))
        except SlurmError as error:
            self._log(f"jobs could not be cancelled; they will find nothing to do: {error}")

    def _others(self, *kinds: str) -> list[str]:
        """Ids of the study's jobs of these kinds ("server", "workers") that have not ended, without this one."""
        names = [f"{self._name}-{kind}" for kind in kinds]
        return [job.id for job in self.slurm.jobs(*names) if not job.ended and job.whole != self._job]


def _cores() -> int | None:
    """Cores that Slurm has given the server; None where it does not tell.

    For the first of several components of a job the variable has another name.
    """
    names = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_PER_TASK_HET_GROUP_0")
    return next((int(os.environ[name]) for name in names if name in os.environ), None)
