"""The job in waiting, which continues the study if the server's job dies."""

from __future__ import annotations

from pathlib import Path

from penstock.slurm.commands import Slurm
from penstock.slurm.scripts import FOLDER, SERVER

RESTART = "PENSTOCK_RESTART"  # environment variable: how many servers of this study have died


def submit_waiting(slurm: Slurm, directory: Path, job: str, restart: int) -> str:
    """Submit a server's job that starts only if another one ends badly.

    Args:
        slurm: runs Slurm's commands.
        directory: the run directory.
        job: id of the job on which the new one depends.
        restart: how many servers of this study will have died when the new one starts.

    Returns:
        The id of the new job.

    Raises:
        SlurmError: Slurm refuses it, or cannot be asked.
    """
    return slurm.submit(
        directory / FOLDER / SERVER, f"--dependency=afternotok:{job}", environment={RESTART: str(restart)}
    )
