"""The torch device of a name in the study file."""

from __future__ import annotations

import torch

from penstock_client.errors import PenstockError


class DeviceError(PenstockError):
    """Torch does not know a device or does not find it."""


def resolve_device(name: str) -> torch.device:
    """Return the torch device of a name.

    Args:
        name: "auto" for the GPU where there is one, else the CPU; or a name that torch knows.

    Raises:
        DeviceError: when torch does not know the device or does not find it.
    """
    found = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if found else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f'[training] device = "{name}": expected "auto", "cpu", "cuda" or "cuda:1"') from error
    if device.type == "cuda" and (not found or (device.index or 0) >= torch.cuda.device_count()):
        raise DeviceError(
            f'[training] device = "{name}": torch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices; '
            'use "auto" or "cpu", or install a CUDA build of torch'
        )
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, NotImplementedError) as error:  # "meta" holds no numbers, and "mps" is of other machines
        raise DeviceError(
            f'[training] device = "{name}": torch {torch.__version__} cannot compute on it here; use "auto" or "cpu"'
        ) from error
    return device
