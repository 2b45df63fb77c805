"""Slurm's own commands: submitting, querying and cancelling jobs. Nothing here knows what a study is."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock_client import PenstockError

TIMEOUT = 60.0  # seconds for one command: slurmctld may be busy
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
ENDED = frozenset(
    {
        *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"),
        *("DEADLINE", "REVOKED"),
    }
)
_FORMAT = "%i|%j|%T|%M|%N|%r"


class SlurmError(PenstockError):
    """A command of Slurm cannot be run, or has failed."""


@dataclass(frozen=True)
class Job:
    """A job as one line of squeue describes it.

    Attributes:
        id: "12", "14_3" for an element of an array, "12+1" for the second component of job 12.
        name: of the job.
        state: Slurm's word, such as "RUNNING".
        seconds: how long it has run.
        nodes: where it runs.
        reason: why it waits.
    """

    id: str
    name: str
    state: str
    seconds: int
    nodes: str
    reason: str

    @property
    def whole(self) -> str:
        """The id of the job that this is a component of, or its own."""
        return self.id.partition("+")[0]

    @property
    def waits(self) -> bool:
        """Whether it has yet to start."""
        return self.state in WAITING

    @property
    def ended(self) -> bool:
        """Whether it will never run again."""
        return self.state in ENDED


class Slurm:
    """Runs Slurm's commands.

    Every method raises SlurmError where its command cannot be run or fails.

    Args:
        via: words before each command, such as ("ssh", "login1").
    """

    def __init__(self, via: Sequence[str] = ()) -> None:
        self._via = tuple(via)

    def submit(self, script: Path, *options: str, environment: Mapping[str, str] | None = None) -> str:
        """Submit a job with sbatch.

        Args:
            script: the batch script.
            options: of sbatch.
            environment: variables of the job, beside those of this process.

        Returns:
            The id of the job.
        """
        settings = [f"{name}={value}" for name, value in (environment or {}).items()]
        words = ["sbatch", "--parsable", *options, f"--export={','.join(['ALL', *settings])}", str(script)]
        return self._run(words).strip().split(";")[0]

    def jobs(self, *names: str) -> list[Job]:
        """List the jobs of these names, each element of an array for itself.

        Slurm also lists jobs that ended a short while ago.
        """
        text = self._run(
            ["squeue", "--noheader", "--array", "--states=all", f"--name={','.join(names)}", f"--format={_FORMAT}"]
        )
        return [parse_job(line) for line in text.splitlines() if line.strip()]

    def cancel(self, ids: Sequence[str], *options: str) -> None:
        """Cancel jobs, or with options of scancel send them a signal; jobs that have ended are no error."""
        if ids:
            self._run(["scancel", "--quiet", *options, *dict.fromkeys(ids)])

    def requeue(self, job: str) -> None:
        """Put a running job back into the queue; Slurm ends its processes."""
        self._run(["scontrol", "requeue", job])

    def show(self, *words: str) -> dict[str, str]:
        """Run `scontrol show` with these words.

        Returns:
            Key to value.
        """
        text = self._run(["scontrol", "show", *words])
        pairs = (part.partition("=") for line in text.splitlines() for part in _parts(line))
        return {key.strip(): value.strip() for key, equals, value in pairs if equals}

    def ended_states(self, ids: Sequence[str]) -> dict[str, str]:
        """Look up jobs that squeue no longer lists in the accounting.

        Returns:
            State by job id; {} where Slurm keeps no accounting.
        """
        options = ["--noheader", "--parsable2", "--allocations", "--format=JobID,State"]
        try:
            text = self._run(["sacct", *options, f"--jobs={','.join(ids)}"])
        except SlurmError:
            return {}
        return parse_states(text)

    def _run(self, words: Sequence[str]) -> str:
        if not self._via and shutil.which(words[0]) is None:
            raise SlurmError(
                f"{words[0]} is not on the PATH: expected Slurm's commands on this machine; go to a login node, or "
                'give [slurm] via = "ssh login1" where only another machine has them'
            )
        command = [*self._via, *map(shlex.quote, words)] if self._via else list(words)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT, check=False, env=without_job(os.environ)
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SlurmError(f"{' '.join(command[:2])} did not answer: {error}") from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())
            raise SlurmError(f"{' '.join(command)} failed with code {done.returncode}: {said}")
        return done.stdout


def parse_job(line: str) -> Job:
    """Read a line of squeue in the format that `Slurm.jobs` asks for.

    Raises:
        SlurmError: the line has another form.
    """
    parts = line.split("|", 5)
    if len(parts) < 6:
        raise SlurmError(f"squeue printed {line!r}: expected a line of the form {_FORMAT}")
    id_, name, state, elapsed, nodes, reason = parts
    return Job(id_.strip().removesuffix("+0"), name, state, _elapsed(elapsed), nodes, reason)


def parse_states(text: str) -> dict[str, str]:
    """Read the output of sacct: a line "12_3|CANCELLED by 0" gives {"12_3": "CANCELLED"}."""
    rows = (line.partition("|") for line in text.splitlines())
    return {job: state.split()[0].rstrip("+") for job, bar, state in rows if bar and state.strip()}


def _elapsed(text: str) -> int:
    """Seconds of a time such as 1-02:03:04; 0 for INVALID, which squeue prints for some jobs."""
    days, _, clock = text.strip().rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + (int(part) if part.isdigit() else 0)
    return seconds + 86400 * (int(days) if days.isdigit() else 0)


def _parts(line: str) -> list[str]:
    """The "key=value" texts in a line: one in those of `scontrol show config`, many in those of `show node`."""
    return [line] if " = " in line else line.split()


def without_job(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out the variables of the Slurm job that this process runs in: a job submitted from it would obey them."""
    return {
        k: v for k, v in environment.items() if k == "SLURM_CONF" or not k.startswith(("SLURM_", "SLURMD_", "SBATCH_"))
    }
