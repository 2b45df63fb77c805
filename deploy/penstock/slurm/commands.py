"""Slurm's own commands: submitting, asking, cancelling. Nothing here knows what a study is."""

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
    {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "REVOKED"}
)  # fmt: skip
_FORMAT = "%i|%j|%T|%M|%N|%r"


class SlurmError(PenstockError):
    """A command of Slurm's cannot be run, or has failed."""


@dataclass(frozen=True)
class Job:
    """One line of squeue. id: "12", "14_3" of an array, "12+1" of the second component of job 12. state: as Slurm calls it.

    seconds: that it has run. nodes: where. reason: why it waits.
    """

    id: str
    name: str
    state: str
    seconds: int
    nodes: str
    reason: str

    @property
    def whole(self) -> str:
        """The id of the job that it is a component of, or its own."""
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
    """Runs Slurm's commands; every method raises SlurmError where one fails.

    via: words before each command, such as ("ssh", "login1").
    """

    def __init__(self, via: Sequence[str] = ()) -> None:
        self._via = tuple(via)

    def submit(self, script: Path, *options: str, environment: Mapping[str, str] | None = None) -> str:
        """sbatch; returns the job's id. `environment` is added to what the job gets."""
        settings = [f"{name}={value}" for name, value in (environment or {}).items()]
        words = ["sbatch", "--parsable", *options, f"--export={','.join(['ALL', *settings])}", str(script)]
        return self._run(words).strip().split(";")[0]

    def jobs(self, *names: str) -> list[Job]:
        """The jobs of these names, each element of an array for itself; those that ended a short while ago as well."""
        text = self._run(
            ["squeue", "--noheader", "--array", "--states=all", f"--name={','.join(names)}", f"--format={_FORMAT}"]
        )
        return [parse_job(line) for line in text.splitlines() if line.strip()]

    def cancel(self, ids: Sequence[str], *options: str) -> None:
        """scancel; jobs that have ended already are no error."""
        if ids:
            self._run(["scancel", "--quiet", *options, *dict.fromkeys(ids)])

    def requeue(self, job: str) -> None:
        """Back to the queue with a job that runs; Slurm then ends what runs of it."""
        self._run(["scontrol", "requeue", job])

    def show(self, *words: str) -> dict[str, str]:
        """`scontrol show ...` as key to value."""
        text = self._run(["scontrol", "show", *words])
        pairs = (part.partition("=") for line in text.splitlines() for part in _parts(line))
        return {key.strip(): value.strip() for key, equals, value in pairs if equals}

    def ended_states(self, ids: Sequence[str]) -> dict[str, str]:
        """States by job id of jobs that squeue has forgotten, from the accounting; {} where there is none."""
        try:
            text = self._run(
                [
                    "sacct",
                    "--noheader",
                    "--parsable2",
                    "--allocations",
                    f"--jobs={','.join(ids)}",
                    "--format=JobID,State",
                ]
            )
        except SlurmError:
            return {}
        return parse_states(text)

    def _run(self, words: Sequence[str]) -> str:
        if not self._via and shutil.which(words[0]) is None:
            raise SlurmError(
                f"{words[0]} is not on the PATH: expected Slurm's commands on this machine; go to a login node, or give "
                '[slurm] via = "ssh login1" where only another machine has them'
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
    """One line of squeue in our format."""
    id_, name, state, elapsed, nodes, reason = line.split("|", 5)
    return Job(id_.strip().removesuffix("+0"), name, state, _elapsed(elapsed), nodes, reason)


def parse_states(text: str) -> dict[str, str]:
    """sacct's "12_3|CANCELLED by 0" to {"12_3": "CANCELLED"}."""
    rows = (line.partition("|") for line in text.splitlines())
    return {job: state.split()[0].rstrip("+") for job, bar, state in rows if bar and state.strip()}


def _elapsed(text: str) -> int:
    """1-02:03:04 to seconds."""
    days, _, clock = text.strip().rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + (int(part) if part.isdigit() else 0)
    return seconds + 86400 * int(days or 0)


def _parts(line: str) -> list[str]:
    """`scontrol show config` has a key and a value a line, `show node` many."""
    return [line] if " = " in line else line.split()


def without_job(environment: Mapping[str, str]) -> dict[str, str]:
    """Without the variables of the job that we run in: a job that is submitted from here would take them for its own."""
    return {
        k: v for k, v in environment.items() if k == "SLURM_CONF" or not k.startswith(("SLURM_", "SLURMD_", "SBATCH_"))
    }
