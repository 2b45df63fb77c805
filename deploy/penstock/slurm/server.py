"""What the server's job runs: the study, with workers from Slurm, and a job in waiting that goes on if this one dies."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from penstock.run import LOGS, REPORT, Display, open_run
from penstock.run.run import Launcher, Signals, run_study
from penstock.slurm.address import node_address
from penstock.slurm.commands import Slurm, SlurmError
from penstock.slurm.launcher import SlurmLauncher
from penstock.slurm.profile import Profile
from penstock.slurm.ray_nodes import network_of, ray_over_nodes
from penstock.slurm.scripts import FOLDER, WORKER, WORKERS, jobs_name, used_profile
from penstock.slurm.steps import StepLauncher
from penstock.slurm.waiting import RESTART, submit_waiting
from penstock.study import StudyError
from penstock.study.check import check_study

TIME_IS_UP = "SIGUSR1"  # what server.sbatch asks Slurm to send


def serve_study(directory: Path, display: Display) -> int:
    """Run a submitted study inside a job of Slurm's, from its last checkpoint if there is one; returns the exit code.

    As the first thing another job is submitted that starts if this one ends badly, however it ends: cancelled, killed, its node lost.
    It is taken back when the study has ended.

    Raises:
        StudyError: the study cannot run on this node. SlurmError: this is no job, or Slurm cannot be asked.
    """
    directory = directory.absolute()
    study, profile = open_run(directory), used_profile(directory)
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job:
        raise SlurmError(f"SLURM_JOB_ID is not set: expected a job of Slurm's; use `penstock submit {directory}`")
    server = _ServerJob(Slurm((profile.slurm.via or "").split()), profile, directory, job, display.log)
    if _status(directory) == "finished":  # the server before died on its last steps
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
        code = run_study(
            study,
            directory,
            display,
            resume=True,
            ray_address=ray_address,
            launch=server.launcher,
            cores=cores,
            signals=signals,
        )
    server.end(_status(directory), signals.received)
    return code


class _ServerJob:
    """This job, the one in waiting, and the workers'."""

    def __init__(self, slurm: Slurm, profile: Profile, directory: Path, job: str, log: Callable[[str], None]) -> None:
        self.slurm = slurm
        self._profile, self._directory, self._job, self._log = profile, directory, job, log
        self._name = jobs_name(directory)
        self._restart = int(os.environ.get(RESTART, 0))

    def launcher(
        self, wanted: Callable[[], int], finished: Callable[[], int], on_failure: Callable[[str], None]
    ) -> Launcher:
        """For `run_study`; the scripts know where connect.json is."""
        if self._profile.together:
            return StepLauncher(
                self._job,
                self._profile.workers,
                script=self._directory / FOLDER / WORKER,
                logs=self._directory / LOGS,
                wanted=wanted,
                finished=finished,
                log=self._log,
                on_failure=on_failure,
            )
        return SlurmLauncher(
            self.slurm,
            f"{self._name}-workers",
            self._profile.workers,
            script=self._directory / FOLDER / WORKERS,
            logs=self._directory / LOGS,
            poll=self._profile.slurm.poll,
            wanted=wanted,
            finished=finished,
            log=self._log,
            on_failure=on_failure,
        )

    def submit_next(self) -> None:
        """Submit the job that goes on if this one dies, unless it is there or so many have died already."""
        if self._restart >= self._profile.server.restarts:
            self._log(f"[server] restarts = {self._profile.server.restarts}: no other job goes on if this one dies")
            return
        if self._profile.together and not self._restart:
            return  # `penstock submit` has done it, since jobs may not be allowed to
        try:
            if self._others("server"):
                return  # this job has come back from the queue
            following = submit_waiting(self.slurm, self._directory, self._job, self._restart + 1)
        except SlurmError as error:
            self._log(f"no other job goes on if this one dies: {error}")
            return
        self._log(f"job {following} is in waiting, to go on if this one dies")

    def end(self, status: str, signal: str) -> None:
        """Decide what follows, once the study has been left in `status` after `signal` ("": none)."""
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
        """Cancel the job in waiting, and whatever a life before has left: nothing is to be done."""
        try:
            self.slurm.cancel(self._others("server", "workers"))
        except SlurmError as error:
            self._log(f"jobs could not be cancelled; they will find nothing to do: {error}")

    def _others(self, *kinds: str) -> list[str]:
        names = [f"{self._name}-{kind}" for kind in kinds]
        return [job.id for job in self.slurm.jobs(*names) if not job.ended and job.whole != self._job]


def _cores() -> int | None:
    """That Slurm has given the server; as the first of several components, it is told under another name."""
    names = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_PER_TASK_HET_GROUP_0")
    return next((int(os.environ[name]) for name in names if name in os.environ), None)


def _status(directory: Path) -> str:
    report = directory / REPORT
    return str(json.loads(report.read_text())["status"]) if report.is_file() else ""
