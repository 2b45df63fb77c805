"""How the jobs of a study stand, as Slurm has it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from penstock.slurm.commands import Job, Slurm, SlurmError
from penstock.slurm.scripts import jobs_name, submitted
from penstock.study import StudyError


@dataclass(frozen=True)
class StudyJobs:
    """server: the job that runs the server or is about to, None where there is none. waiting: whether another is there to go on if it dies.

    workers: how many of their jobs are in each state. together: they have none, but run in the server's.
    ended: the last server's job that Slurm remembers. unknown: why Slurm could not be asked, "" where it could.
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
        """ "running" or "waiting for its job 12 to start"; "" when no server job is left."""
        if self.server is None:
            return ""
        return f"waiting for its job {self.server.id} to start" if self.server.waits else "running"

    def line(self) -> str:
        """All jobs in one line."""
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
    """The jobs of the study of a run directory; None where it was never submitted to Slurm."""
    if not submitted(directory):
        return None
    name = jobs_name(directory)
    try:
        jobs = Slurm().jobs(f"{name}-server", f"{name}-workers")
    except SlurmError as error:
        return StudyJobs(unknown=str(error))
    servers = [job for job in jobs if job.name.endswith("-server")]
    # The one in waiting depends on the other; where the other is no more, it is the server.
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
    """Raise StudyError if jobs of the study are in the queue: on a shared file system the lock of a run directory need not be seen."""
    jobs = read_jobs(directory)
    if jobs is not None and jobs.any:
        raise StudyError(
            [f"{directory}: {jobs.line()}; expected none: wait, or stop them with `penstock cancel {directory}`"]
        )
