"""mesh.h5: the static fields of a study, such as the coordinates of its points."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from penstock_client.atomic_file import replacing

MESH = "mesh.h5"


def add_to_mesh(directory: Path, fields: dict[str, NDArray[np.float64]]) -> None:
    """Add static fields to mesh.h5. The file is replaced as a whole, so that a crash leaves the old one.

    Args:
        directory: the study's run directory.
        fields: values by name, each of shape (points, components).

    Raises:
        OSError: when the file cannot be read or written.
    """
    path = directory / MESH
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for name, values in (_read(path) | fields).items():
            file[name] = values


def _read(path: Path) -> dict[str, NDArray[np.float64]]:
    if not path.is_file():
        return {}
    with h5py.File(path) as file:
        return {name: dataset[()] for name, dataset in file.items()}
