"""Workers that start together with the server: each is a step in the second component of the server's own job."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from penstock.slurm.commands import SlurmError, without_job
from penstock.slurm.profile import WorkerJobs
from penstock.slurm.scripts import memory_per_cpu
from penstock.workers import LocalLauncher, StudyLink, WorkerProcesses
from penstock_server.study import TimeoutsSection


def step_launcher(
    job: str,
    workers: WorkerJobs,
    script: Path,
    logs: Path,
    study: StudyLink,
    timeouts: TimeoutsSection,
    log: Callable[[str], None],
) -> LocalLauncher:
    """Make the launcher of workers that are steps of a job.

    Each worker has an srun on this node, which ends when the worker ends. A worker that dies is started again in the
    same place, as a worker on this machine is.

    Args:
        job: id of the job that this process runs in.
        workers: the profile's section.
        script: worker.sh.
        logs: folder of worker-<n>.log.
        study: what the launcher asks, and tells that it has given up.
        timeouts: the study's [timeouts].
        log: called with a line about each worker that ended with an error.
    """

    def exited(pid: int, code: int, _last_lines: str) -> None:
        if code:
            log(f"a worker (srun's pid {pid}) ended with code {code}; its log is in {logs}")

    count = workers.count * workers.each
    processes = WorkerProcesses(
        count=count,
        command=lambda _number: step_command(job, workers, script),
        logs=logs,
        environment=without_job(os.environ),
        # srun then ends its step at once, whatever state that is in. Killed by SIGKILL, srun would leave it behind.
        kill_signal=signal.SIGTERM,
        elsewhere=True,
        timeouts=timeouts,
    )
    return LocalLauncher(processes, study, exited)


def step_command(job: str, workers: WorkerJobs, script: Path) -> list[str]:
    """Make the command line that starts one worker as a step.

    Args:
        job: id of the job.
        workers: the profile's section.
        script: worker.sh.

    Raises:
        SlurmError: there is no srun on this node.
    """
    if shutil.which("srun") is None:
        raise SlurmError(
            "srun is not on the PATH: expected Slurm's commands where the server runs; bind them into the container, "
            'or use [workers] start = "array"'
        )
    words = ["srun", f"--jobid={job}", "--het-group=1", "--nodes=1", "--ntasks=1", "--exact"]
    words.append(f"--cpus-per-task={workers.cpus}")
    if memory := memory_per_cpu(workers, workers.each * workers.cpus):
        words.append(f"--mem-per-cpu={memory}M")
    if workers.gpus:
        words.append(f"--gpus-per-task={workers.gpus}")
    return [*words, "bash", str(script)]
