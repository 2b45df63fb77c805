"""The Slurm launcher: jobs of workers, submitted, watched and cancelled from inside the server's job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from penstock.slurm.commands import Job, Slurm, SlurmError
from penstock.slurm.profile import WorkerJobs
from penstock.workers import QUICK_DEATHS, QuickDeaths, StudyLink, tail
from penstock_server.network import DEFAULT
from penstock_server.study import TimeoutsSection
from penstock_solvers.introduction import introduced

STOP_LOOK = 0.5
FRESH_SECONDS = 1.0  # until the server knows that a worker has ended and wants another one
DIED = ("FAILED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY")

_log = logging.getLogger("penstock.slurm")


@dataclass(frozen=True)
class WorkerArray:
    """The jobs of workers of one study.

    Attributes:
        name: of the jobs. A server that starts again finds the jobs of its earlier life by it.
        workers: the profile's section.
        script: workers.sbatch.
        logs: folder where the script writes worker-<job>_<element>.log.
        poll: seconds between two looks at the queue.
        timeouts: the study's [timeouts].
    """

    name: str
    workers: WorkerJobs
    script: Path
    logs: Path
    poll: float
    timeouts: TimeoutsSection = field(default_factory=TimeoutsSection)

    def log(self, job: Job) -> Path:
        """The log of a job."""
        return self.logs / f"worker-{job.id}.log"


class SlurmLauncher:
    """Keeps jobs of workers in Slurm while the study has something for them to do.

    A job ends when its worker learns that nothing is left, when its time is up, when it dies, or when it is cancelled
    here because the server has given up a worker in it. While more are wanted, another job takes its place.

    Args:
        slurm: runs Slurm's commands.
        array: the jobs.
        study: what the launcher asks, and tells that it has given up.
        log: called with a line about each event.
    """

    def __init__(self, slurm: Slurm, array: WorkerArray, study: StudyLink, log: Callable[[str], None]) -> None:
        self._slurm, self._array, self._study, self._log = slurm, array, study, log
        self._stopping = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._keep, name="penstock-slurm", daemon=True)
        self._alive: dict[str, Job] = {}  # at the last look
        self._dead: set[str] | None = None  # jobs whose end has been counted; None before the first look
        self._given_up: frozenset[tuple[str, int]] = frozenset()
        self._introduced: dict[str, list[tuple[str, int]]] = {}  # by job: its workers, once all are known
        most = max(QUICK_DEATHS, 2 * array.workers.count)  # all jobs may die at the same moment, and once more
        self._quick_deaths = QuickDeaths(most, array.timeouts.quick_death, study.finished_simulations)

    def start(self) -> None:
        """Begin to submit and watch jobs."""
        self._thread.start()

    def kill(self, given_up: Collection[tuple[str, int, str]]) -> list[int]:
        """Have the jobs of workers that the server has given up cancelled at the next look.

        Args:
            given_up: host name, process id and name of the key of each client that the server has given up.

        Returns:
            An empty list: the jobs end later, and a line is logged then.
        """
        self._given_up = frozenset((host, pid) for host, pid, key in given_up if key == DEFAULT)
        return []

    def stop(self) -> None:
        """Cancel all jobs of workers; return when none is left, or after [timeouts] slurm_exit."""
        self._stopping.set()
        if self._stopped:
            return
        self._stopped = True
        if self._thread.ident is not None:
            self._thread.join()
        deadline = time.monotonic() + self._array.timeouts.slurm_exit
        try:
            while left := [job.id for job in self._slurm.jobs(self._array.name) if not job.ended]:
                self._slurm.cancel(left)
                if time.monotonic() > deadline:
                    self._log(f"{len(left)} jobs of workers are cancelled but still there: {', '.join(left)}")
                    return
                time.sleep(STOP_LOOK)
        except SlurmError as error:
            by_hand = f"scancel --name={self._array.name}"
            self._log(f"the workers' jobs could not be cancelled; do it with `{by_hand}`: {error}")

    def _keep(self) -> None:
        """Watch the jobs; an error here ends the study, which would otherwise wait for ever."""
        try:
            self._watch()
        except Exception as error:
            _log.exception("jobs of workers cannot be kept running")
            self._give_up(f"jobs of workers cannot be kept running: {type(error).__name__}: {error}")

    def _watch(self) -> None:
        answered = time.monotonic()
        logged = ""
        while not self._stopping.is_set():
            try:
                self._cancel_given_up()
                self._look(self._slurm.jobs(self._array.name))
                answered, logged = time.monotonic(), ""
            except (SlurmError, OSError) as error:  # it may pass
                silent = time.monotonic() - answered
                if str(error) != logged:  # once, not at every look
                    self._log(f"Slurm cannot be asked, or refuses; trying again: {error}")
                    logged = str(error)
                if silent > self._array.timeouts.slurm:
                    self._give_up(f"Slurm has given no workers for {silent:.0f} s: {error}")
            self._stopping.wait(self._array.poll)

    def _look(self, jobs: list[Job]) -> None:
        """Count the jobs that have ended, and submit or cancel until there are as many as wanted."""
        if self._note_ends(jobs):
            self._stopping.wait(FRESH_SECONDS)
        workers = self._array.workers
        wanted = min(workers.count, -(-self._study.wanted_workers() // workers.each))
        missing = wanted - len(self._alive)
        if missing > 0 and not self._stopping.is_set():
            job = self._slurm.submit(self._array.script, f"--array=0-{missing - 1}")
            self._log(f"submitted {missing} {'job' if missing == 1 else 'jobs'} of workers (array {job})")
        elif missing < 0:
            waiting = [job.id for job in self._alive.values() if job.waits]
            if spare := waiting[missing:]:
                self._slurm.cancel(spare)
                self._log(f"cancelled {len(spare)} waiting jobs of workers: nothing is left for them to do")

    def _cancel_given_up(self) -> None:
        """Cancel jobs with a frozen or stuck worker. Slurm continues, terminates and then kills a stopped one."""
        if not self._given_up:
            return
        for job in [job for job in self._alive.values() if not job.waits]:
            for host, pid in self._given_up.intersection(self._workers_of(job)):
                self._log(
                    f"a worker (pid {pid} on {host}) has been silent or stuck for too long: "
                    f"its job {job.id} is cancelled and replaced"
                )
                self._slurm.cancel([job.id])
                del self._alive[job.id]
                break

    def _workers_of(self, job: Job) -> list[tuple[str, int]]:
        """Host and process id of the workers in a job, from its log."""
        if job.id in self._introduced:
            return self._introduced[job.id]
        path = self._array.log(job)
        found = introduced(path.read_text(errors="replace")) if path.is_file() else []
        if len(found) == self._array.workers.each:
            self._introduced[job.id] = found
        return found

    def _note_ends(self, jobs: list[Job]) -> bool:
        """Count the jobs that have ended since the last look; tell whether there were any."""
        ended = {job.id: job for job in jobs if job.ended}
        alive = {job.id: job for job in jobs if not job.ended and job.state != "COMPLETING"}
        if self._dead is None:  # jobs that ended before this life of the server do not count
            self._dead = set(ended)
        listed = {job.id for job in jobs}
        forgotten = [
            id_ for id_ in self._alive if id_ not in listed
        ]  # Slurm forgets ended jobs soon where MinJobAge is short
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
        elif job.state == "COMPLETED" or job.seconds >= self._quick_deaths.seconds:
            self._quick_deaths.lived()
        path = self._array.log(job)
        if job.state != "COMPLETED":
            where = f" on {job.nodes}" if job.nodes else ""
            self._log(f"the workers' job {job.id}{where} ended: {job.state} after {job.seconds} s; its log is {path}")
        if died and self._quick_deaths.too_many:
            last_lines = tail(path) if path.is_file() else ""
            self._give_up(
                f"{self._quick_deaths.number} jobs of workers in a row died within {self._quick_deaths.seconds:.0f} s of their "
                f"start; the last ({job.id}): {last_lines or 'it printed nothing'} (see {path})"
            )

    def _give_up(self, reason: str) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self._study.fail(reason)
