"""The Slurm launcher: an array of jobs of workers, submitted, looked after and cancelled from inside the server's job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from penstock.slurm.commands import Job, Slurm, SlurmError
from penstock.slurm.profile import WorkerJobs
from penstock.workers import QUICK_DEATHS, QUICK_SECONDS, QuickDeaths, tail
from penstock_solvers.introduction import introduced

UNANSWERED_SECONDS = 900.0  # Slurm may be away for so long (a controller that is restarted)
STOP_SECONDS = 20.0  # that cancelled workers have to hand back what they serve
STOP_LOOK = 0.5
FRESH_SECONDS = 1.0  # after which how many are wanted takes account of a worker that has just ended
DIED = ("FAILED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY")


class SlurmLauncher:
    """Keeps up to `workers.count` jobs of workers in Slurm while there is something for them to do.

    A job ends when its worker is told that nothing is left, when its time is up, when it dies, or when it is cancelled here, because the
    server has given a worker of it up; while more are wanted, another takes its place. Jobs are known by their name, so
    that a server that starts again finds those of the life before.

    Args:
        name: of the workers' jobs. script: workers.sbatch. logs: where it writes worker-<job>_<element>.log.
        poll: seconds between two looks at the queue. wanted: how many worker processes have something to do now.
        finished: how many simulations have come to their end.
        log: told what happens. on_failure: told why the launcher has given up.
    """

    def __init__(
        self,
        slurm: Slurm,
        name: str,
        workers: WorkerJobs,
        *,
        script: Path,
        logs: Path,
        poll: float,
        wanted: Callable[[], int],
        finished: Callable[[], int] = lambda: 0,
        log: Callable[[str], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._slurm, self._name, self._workers = slurm, name, workers
        self._script, self._logs, self._poll = script, logs, poll
        self._wanted, self._log, self._on_failure = wanted, log, on_failure
        self._stopping = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._keep, name="penstock-slurm", daemon=True)
        self._alive: dict[str, Job] = {}  # at the last look
        self._dead: set[str] | None = None  # whose end has been taken note of; None before the first look
        self._given_up: frozenset[tuple[str, int]] = frozenset()
        self._introduced: dict[str, list[tuple[str, int]]] = {}  # by job: who runs in it, where all have said so
        most = max(QUICK_DEATHS, 2 * workers.count)  # every job may die once at the same moment, and once more
        self._quick_deaths = QuickDeaths(most, finished)

    def start(self) -> None:
        """Begin to look after the workers."""
        self._thread.start()

    def kill(self, given_up: Collection[tuple[str, int]]) -> list[int]:
        """Have the jobs cancelled whose workers are among `given_up`, (host, process id), at the next look, which says so; returns none."""
        self._given_up = frozenset(given_up)
        return []

    def stop(self) -> None:
        """Cancel every job of workers; returns when none is left, or none has gone for a while."""
        self._stopping.set()
        if self._stopped:
            return
        self._stopped = True
        if self._thread.ident is not None:
            self._thread.join()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            while left := [job.id for job in self._slurm.jobs(self._name) if not job.ended]:
                self._slurm.cancel(left)
                if time.monotonic() > deadline:
                    self._log(f"{len(left)} jobs of workers are cancelled but still there: {', '.join(left)}")
                    return
                time.sleep(STOP_LOOK)
        except SlurmError as error:
            self._log(f"the workers' jobs could not be cancelled; do it with `scancel --name={self._name}`: {error}")

    def _keep(self) -> None:
        answered = time.monotonic()
        said = ""
        while not self._stopping.is_set():
            try:
                self._cancel_given_up()
                self._look(self._slurm.jobs(self._name))
                answered, said = time.monotonic(), ""
            except SlurmError as error:
                silent = time.monotonic() - answered
                if str(error) != said:  # once, not at every look
                    self._log(f"Slurm cannot be asked, or refuses; trying again: {error}")
                    said = str(error)
                if silent > UNANSWERED_SECONDS:
                    self._give_up(f"Slurm gives no workers since {silent:.0f} s: {error}")
            self._stopping.wait(self._poll)

    def _look(self, jobs: list[Job]) -> None:
        """Take note of what has ended, and have as many jobs as are wanted."""
        if self._note_ends(jobs):
            self._stopping.wait(FRESH_SECONDS)
        wanted = min(self._workers.count, -(-self._wanted() // self._workers.each))
        missing = wanted - len(self._alive)
        if missing > 0 and not self._stopping.is_set():
            job = self._slurm.submit(self._script, f"--array=0-{missing - 1}")
            self._log(f"submitted {missing} {'job' if missing == 1 else 'jobs'} of workers (array {job})")
        elif missing < 0:
            waiting = [job.id for job in self._alive.values() if job.waits]
            if spare := waiting[missing:]:
                self._slurm.cancel(spare)
                self._log(f"cancelled {len(spare)} waiting jobs of workers: nothing is left for them to do")

    def _cancel_given_up(self) -> None:
        """Cancel jobs with a worker that is frozen or stuck; Slurm continues a stopped process, asks it to go, and kills it in the end."""
        if not self._given_up:
            return
        for job in [job for job in self._alive.values() if not job.waits]:
            for host, pid in self._given_up.intersection(self._workers_of(job)):
                self._log(
                    f"a worker (pid {pid} on {host}) has been silent or stuck for too long: its job {job.id} is cancelled and replaced"
                )
                self._slurm.cancel([job.id])
                del self._alive[job.id]
                break

    def _workers_of(self, job: Job) -> list[tuple[str, int]]:
        """Host and process id of the workers in a job, as its log has them."""
        if job.id in self._introduced:
            return self._introduced[job.id]
        path = self._log_of(job)
        found = introduced(path.read_text(errors="replace")) if path.is_file() else []
        if len(found) == self._workers.each:
            self._introduced[job.id] = found
        return found

    def _log_of(self, job: Job) -> Path:
        return self._logs / f"worker-{job.id}.log"

    def _note_ends(self, jobs: list[Job]) -> bool:
        """Whether any job has ended since the last look."""
        ended = {job.id: job for job in jobs if job.ended}
        alive = {job.id: job for job in jobs if not job.ended and job.state != "COMPLETING"}
        if self._dead is None:  # what ended before this life of the server says nothing
            self._dead = set(ended)
        listed = {job.id for job in jobs}
        forgotten = [id_ for id_ in self._alive if id_ not in listed]  # a short MinJobAge
        states = self._slurm.ended_states(forgotten) if forgotten else {}
        for id_ in forgotten:
            before = self._alive[id_]
            ended[id_] = Job(id_, before.name, states.get(id_, "ENDED"), before.seconds, before.nodes, "")
        new = [job for job in ended.values() if job.id not in self._dead]
        for job in new:
            self._dead.add(job.id)
            self._note_end(job)
        self._alive = alive
        return bool(new)

    def _note_end(self, job: Job) -> None:
        died = job.state in DIED
        if died:
            self._quick_deaths.died(job.seconds)
        elif job.state == "COMPLETED" or job.seconds >= QUICK_SECONDS:
            self._quick_deaths.lived()
        path = self._log_of(job)
        if job.state != "COMPLETED":
            where = f" on {job.nodes}" if job.nodes else ""
            self._log(f"the workers' job {job.id}{where} ended: {job.state} after {job.seconds} s; its log is {path}")
        if died and self._quick_deaths.too_many:
            last_words = tail(path) if path.is_file() else ""
            self._give_up(
                f"{self._quick_deaths.number} jobs of workers in a row died within {QUICK_SECONDS:.0f} s of their start; the last "
                f"({job.id}): {last_words or 'it said nothing'} (see {path})"
            )

    def _give_up(self, reason: str) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self._on_failure(reason)
