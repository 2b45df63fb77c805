"""The state of a study's jobs in Slurm."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from penstock.slurm.commands import Job, Slurm, SlurmError
from penstock.slurm.scripts import jobs_name, submitted
from penstock.study import StudyError


@dataclass(frozen=True)
class StudyJobs:
    """The jobs of a study at one moment.

    Attributes:
        server: the job that runs the server or will run it; None where there is none.
        waiting: whether there is another job, which continues the study if the server's job dies.
        workers: number of jobs of workers by state.
        together: workers run in the server's job.
        ended: the last job of the server that Slurm remembers; None where there is none.
        unknown: why Slurm could not be asked; "" where it could.
    """

    server: Job | None = None
    waiting: bool = False
    workers: Counter[str] = field(default_factory=Counter)
    together: bool = False
    ended: Job | None = None
    unknown: str = ""

    @property
    def any(self) -> bool:
        """Whether any job is left."""
        return self.server is not None or bool(self.workers)

    @property
    def running(self) -> bool:
        """Whether the server's job runs."""
        return self.server is not None and not self.server.waits

    def server_state(self) -> str:
        """Describe the server's job: "running", "waiting for its job 12 to start", or "" when none is left."""
        if self.server is None:
            return ""
        return f"waiting for its job {self.server.id} to start" if self.server.waits else "running"

    def line(self) -> str:
        """Describe all jobs in one line."""
        if self.unknown:
            return f"jobs: unknown: {self.unknown}"
        if not self.any:
            return "jobs: none" + (f" (the last server's, {self.ended.id}: {self.ended.state})" if self.ended else "")
        parts = []
        if self.server is not None:
            where = f" on {self.server.nodes}" if self.server.nodes else ""
            if self.server.waits and self.server.reason != "None":
                where = f" ({self.server.reason})"
            parts.append(f"server {self.server.id} {self.server.state.lower()}{where}")
        if self.waiting:
            parts.append("another in waiting")
        if self.together:
            return f"jobs: {', '.join(parts)}; workers: in the same job"
        states = ", ".join(f"{count} {state.lower()}" for state, count in sorted(self.workers.items()))
        return f"jobs: {', '.join(parts)}; workers: {states or 'none'}"


def read_jobs(directory: Path) -> StudyJobs | None:
    """Ask Slurm for the jobs of the study in a run directory; None where it was never submitted."""
    if not submitted(directory):
        return None
    name = jobs_name(directory)
    try:
        jobs = Slurm().jobs(f"{name}-server", f"{name}-workers")
    except SlurmError as error:
        return StudyJobs(unknown=str(error))
    servers = [job for job in jobs if job.name.endswith("-server")]
    # The job in waiting depends on the server's job; once that has ended, it is the server's job itself.
    alive = sorted((job for job in servers if not job.ended), key=lambda job: (job.waits, int(job.id)))
    ended = sorted((job for job in servers if job.ended and job.nodes), key=lambda job: int(job.id))
    others = [job for job in jobs if job.name.endswith("-workers") and not job.ended]
    components = [job for job in others if job.whole in {server.id for server in alive}]
    return StudyJobs(
        alive[0] if alive else None,
        waiting=len(alive) > 1,
        workers=Counter(job.state for job in others if job not in components),
        together=bool(components),
        ended=ended[-1] if ended else None,
    )


def expect_no_jobs(directory: Path) -> None:
    """Check that no job of the study is in the queue.

    The lock of a run directory does not show this: on a shared file system other machines need not see it.

    Raises:
        StudyError: there are jobs.
    """
    jobs = read_jobs(directory)
    if jobs is not None and jobs.any:
        raise StudyError(
            [f"{directory}: {jobs.line()}; expected none: wait, or stop them with `penstock cancel {directory}`"]
        )
