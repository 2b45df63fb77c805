"""Capacities in samples and in bytes, and the memory that is there for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from penstock_server.buffer import available_memory, capacity_in_samples
from penstock_server.study import FieldSpec, SampleSpec

SPEC = SampleSpec(parameters=("a",), fields=(FieldSpec("u", 1, (254,)),))  # 4 * (2 + 254) = 1024 bytes a sample


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 4 GiB available and no control groups."""
    (tmp_path / "proc/self").mkdir(parents=True)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * 2**30))
    (tmp_path / "proc/self/cgroup").write_text("")
    return tmp_path


def available(machine: Path) -> int:
    return available_memory(machine / "proc", machine / "cgroup")


def group(machine: Path, folder: str, files: dict[str, str]) -> None:
    (machine / "cgroup" / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (machine / "cgroup" / folder / name).write_text(text + "\n")


@pytest.mark.parametrize(("capacity", "samples"), [(2000, 2000), ("1 MiB", 1024), ("1.5 KiB", 1), ("2048 B", 2)])
def test_capacity_in_samples(capacity: int | str, samples: int) -> None:
    assert SPEC.bytes == 1024
    assert capacity_in_samples(capacity, SPEC) == samples


@pytest.mark.parametrize("capacity", [0, -3, True, "0 MiB"])
def test_a_capacity_that_is_none(capacity: int | str) -> None:
    with pytest.raises(ValueError, match=r"expected samples .* or a size"):
        capacity_in_samples(capacity, SPEC)


def test_an_unknown_unit() -> None:
    with pytest.raises(ValueError, match="expected a number followed by one of B, kB"):
        capacity_in_samples("8 gigs", SPEC)


def test_a_size_smaller_than_a_sample() -> None:
    with pytest.raises(ValueError, match="capacity = '1000 B': one sample alone takes 1,024 bytes"):
        capacity_in_samples("1000 B", SPEC)


@pytest.mark.parametrize("capacity", [10**12, "900 TiB"])
def test_a_capacity_beyond_the_memory(capacity: int | str) -> None:
    with pytest.raises(
        ValueError, match=r"takes [\d,]+ bytes .* are available; lower the capacity to \d+ samples"
    ) as error:
        capacity_in_samples(capacity, SPEC)
    if isinstance(capacity, int):
        assert f"{(capacity + 64) * 1024:,} bytes" in str(error.value)


def test_all_ranks_of_the_machine_count() -> None:
    half = available_memory() // 1024 // 2
    assert capacity_in_samples(half, SPEC, ranks=4) == half  # of all ranks together
    with pytest.raises(ValueError, match=rf"4 buffers of together {3 * half} \+ 256 samples"):
        capacity_in_samples(3 * half, SPEC, ranks=4)


def test_a_machine_without_limits(machine: Path) -> None:
    assert available(machine) == 4 * 2**30


def test_cgroup_v2_limit_less_what_is_used_but_not_cached_files(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("0::/job/step\n")
    group(machine, "job/step", {"memory.max": "max", "memory.current": "5"})
    group(machine, "job", {"memory.max": "3000", "memory.current": "1200", "memory.stat": "anon 7\ninactive_file 200"})
    assert available(machine) == 3000 - 1200 + 200


def test_cgroup_v2_in_a_container_that_sees_only_its_own_group(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("0::/../../docker/abc\n")
    group(machine, "", {"memory.max": "3000", "memory.current": "3100", "memory.stat": "anon 7"})
    assert available(machine) == 0


def test_cgroup_v1_limit(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("5:cpu,cpuacct:/x\n4:memory:/x\n")
    files = {"memory.limit_in_bytes": "5000", "memory.usage_in_bytes": "1000", "memory.stat": "total_inactive_file 10"}
    group(machine, "memory/x", files)
    unlimited = {**files, "memory.limit_in_bytes": str(2**63 - 4096)}
    group(machine, "memory", unlimited)
    assert available(machine) == 4010


def test_this_machine_has_memory() -> None:
    assert available_memory() > 2**20
