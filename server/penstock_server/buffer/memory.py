"""The capacity of a buffer in samples, and whether the memory of this machine suffices for it."""

from __future__ import annotations

from pathlib import Path

import psutil

from penstock_server.study import SampleSpec, parse_bytes

_GIB = 2**30


def capacity_in_samples(
    capacity: int | str, spec: SampleSpec, *, spare: int = 64, ranks: int = 1, ranks_here: int | None = None
) -> int:
    """Convert the study file's capacity to a number of samples.

    Args:
        capacity: number of samples, or a size such as "8 GiB", of all trainer ranks together.
        spec: layout of a sample.
        spare: slots that each buffer has beyond its capacity.
        ranks: number of trainer ranks, each with a buffer of its own.
        ranks_here: number of them on this machine, whose memory must hold their buffers; None where all are.

    Returns:
        Samples of all trainer ranks together.

    Raises:
        ValueError: the size holds no sample, or the buffers need more memory than is available.
    """
    number = parse_bytes(capacity)
    if isinstance(number, bool) or not isinstance(number, int) or number <= 0:
        raise ValueError(f'capacity = {capacity!r}: expected samples (2000) or a size ("8 GiB")')
    samples = number // spec.bytes if isinstance(capacity, str) else number
    if samples < 1:
        raise ValueError(f"capacity = {capacity!r}: one sample alone takes {spec.bytes:,} bytes; give a larger size")
    here = ranks if ranks_here is None else ranks_here
    held = -(-samples * here // ranks)
    needed = (held + here * spare) * spec.bytes
    available = available_memory()
    if needed > available:
        fits = max(0, available // spec.bytes - here * spare) * ranks // here
        buffers = f"{here} buffers of together" if here > 1 else "a buffer of"
        raise ValueError(
            f"capacity = {capacity!r}: {buffers} {held} + {here * spare} samples of {spec.bytes:,} bytes each "
            f"takes {needed:,} bytes ({needed / _GIB:.1f} GiB), but {available:,} ({available / _GIB:.1f} GiB) are "
            f"available; lower the capacity to {fits} samples or less, or use a machine with more memory"
        )
    return samples


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that this process may still allocate.

    This is the machine's available memory, or what the limits of this process's control groups leave of it.

    Args:
        proc: mount point of procfs.
        cgroups: mount point of the control groups.
    """
    return min([int(psutil.virtual_memory().available), *_control_groups(proc, cgroups)])


def _control_groups(proc: Path, root: Path) -> list[int]:
    """Return the bytes left in each control group of this process with a memory limit (cgroup v2, and v1's memory)."""
    left = []
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, used, cache = (
                root / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            continue
        # In a container the path may name groups that are not visible; the limit then is in the top folder.
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(top):
                break
            if (folder / limit).is_file() and (folder / used).is_file():
                value = (folder / limit).read_text().strip()
                if value != "max":
                    left.append(int(value) - int((folder / used).read_text()) + _file_cache(folder, cache))
    return [max(0, bytes_) for bytes_ in left]


def _file_cache(folder: Path, key: str) -> int:
    """Return the bytes of file cache, which count as used although the kernel frees them first."""
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
