"""How many samples a capacity means, and whether this machine can hold them."""

from __future__ import annotations

from pathlib import Path

from penstock_server.study import SampleSpec, parse_bytes

_GIB = 2**30


def capacity_in_samples(capacity: int | str, spec: SampleSpec, *, spare: int = 64, ranks: int = 1) -> int:
    """The study file's capacity, in samples (2000) or as a size ("8 GiB"), in samples of all trainer ranks together.

    spare: slots that a buffer has beyond its capacity. ranks: buffers on this machine.
    Raises ValueError where a sample does not fit in the size, or the buffers do not fit in the memory available.
    """
    number = parse_bytes(capacity)
    if isinstance(number, bool) or not isinstance(number, int) or number <= 0:
        raise ValueError(f'capacity = {capacity!r}: expected samples (2000) or a size ("8 GiB")')
    samples = number // spec.bytes if isinstance(capacity, str) else number
    if samples < 1:
        raise ValueError(f"capacity = {capacity!r}: one sample alone takes {spec.bytes:,} bytes; give a larger size")
    needed = (samples + ranks * spare) * spec.bytes
    available = available_memory()
    if needed > available:
        fits = max(0, available // spec.bytes - ranks * spare)
        buffers = f"{ranks} buffers of together" if ranks > 1 else "a buffer of"
        raise ValueError(
            f"capacity = {capacity!r}: {buffers} {samples} + {ranks * spare} samples of {spec.bytes:,} bytes each takes {needed:,} bytes "
            f"({needed / _GIB:.1f} GiB), but {available:,} ({available / _GIB:.1f} GiB) are available; "
            f"lower the capacity to {fits} samples or less, or use a machine with more memory"
        )
    return samples


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still use: the machine's free memory, or what its control groups leave of their limits."""
    return min([_machine(proc), *_control_groups(proc, cgroups)])


def _machine(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise OSError(f"{proc / 'meminfo'} has no line MemAvailable: expected a Linux kernel since 3.14")


def _control_groups(proc: Path, root: Path) -> list[int]:
    """What is left in each control group above this process that has a memory limit (cgroup v2, and v1's memory controller)."""
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
        # In a container the path may name groups outside its view; the limit then stands at the top.
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
    """Bytes that count as used but that the kernel gives up first: files read long ago."""
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
