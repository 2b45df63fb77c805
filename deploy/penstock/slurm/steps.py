"""The launcher of studies whose server and workers start together: the workers are steps of the server's own job."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Collection
from pathlib import Path

from penstock.slurm.commands import SlurmError, without_job
from penstock.slurm.profile import WorkerJobs
from penstock.slurm.scripts import memory_per_cpu
from penstock.workers import QUICK_DEATHS, LocalLauncher
from penstock_solvers.introduction import introduced


class StepLauncher(LocalLauncher):
    """Keeps a step in the second component of the job for each worker: an srun here, which ends as its worker does.

    A worker that dies is started again where it was, as one on this machine is.

    Args:
        job: the id of the job that this process runs in. script: worker.sh. logs: folder for worker-<n>.log.
        wanted: how many workers have something to do now. finished: how many simulations have come to their end.
        log: told what happens. on_failure: told why the launcher has given up.
    """

    _KILL = (
        signal.SIGTERM
    )  # srun then ends its step at once, whatever state that is in; killed itself, it would leave it behind

    def __init__(
        self,
        job: str,
        workers: WorkerJobs,
        *,
        script: Path,
        logs: Path,
        wanted: Callable[[], int],
        finished: Callable[[], int],
        log: Callable[[str], None],
        on_failure: Callable[[str], None],
    ) -> None:
        def command(_number: int) -> list[str]:
            return step_command(job, workers, script)

        def exited(pid: int, code: int, _last_words: str) -> None:
            log(f"a worker (srun's pid {pid}) ended with code {code}; its log is in {logs}")

        count = workers.count * workers.each
        super().__init__(
            command,
            logs,
            workers=count,
            environment=without_job(os.environ),
            wanted=wanted,
            finished=finished,
            on_exit=exited,
            on_failure=on_failure,
            quick_deaths=max(QUICK_DEATHS, 2 * count),
        )

    def _is_among(self, given_up: Collection[tuple[str, int]], number: int, _pid: int) -> bool:
        return any(worker in given_up for worker in introduced(self._said(number)))


def step_command(job: str, workers: WorkerJobs, script: Path) -> list[str]:
    """What starts one worker. SlurmError where there is no srun."""
    if shutil.which("srun") is None:
        raise SlurmError(
            "srun is not on the PATH: expected Slurm's commands where the server runs; bind them into the container, or use "
            '[workers] start = "array"'
        )
    words = ["srun", f"--jobid={job}", "--het-group=1", "--nodes=1", "--ntasks=1", "--exact"]
    words.append(f"--cpus-per-task={workers.cpus}")
    if memory := memory_per_cpu(workers, workers.each * workers.cpus):
        words.append(f"--mem-per-cpu={memory}M")
    if workers.gpus:
        words.append(f"--gpus-per-task={workers.gpus}")
    return [*words, "bash", str(script)]
