"""The job in waiting, which goes on where the server's job has died."""

from __future__ import annotations

from pathlib import Path

from penstock.slurm.commands import Slurm
from penstock.slurm.scripts import FOLDER, SERVER

RESTART = "PENSTOCK_RESTART"  # how many servers of this study have died


def submit_waiting(slurm: Slurm, directory: Path, job: str, restart: int) -> str:
    """Submit a server that starts if `job` ends badly, and knows that `restart` have died before it; returns its id.

    Raises:
        SlurmError: Slurm refuses it, or cannot be asked.
    """
    return slurm.submit(
        directory / FOLDER / SERVER, f"--dependency=afternotok:{job}", environment={RESTART: str(restart)}
    )
