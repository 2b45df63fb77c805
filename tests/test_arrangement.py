"""Which tests run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from arrangement import TOGETHER, group_of

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("tests/server/study/test_parameters.py::test_a", "tests/server/study/test_parameters.py::test_b[x::y]", True),
        ("tests/studies/test_heat.py::test_a[1]", "tests/studies/test_heat.py::test_a[2]", False),
        ("tests/studies/test_offline.py::test_a", "tests/studies/test_offline.py::test_b", True),
        ("tests/deploy/slurm/test_slurm_nodes.py::test_a", "tests/deploy/slurm/test_slurm_together.py::test_b", True),
        ("tests/deploy/slurm/test_slurm_nodes.py::test_a", "tests/deploy/slurm/test_slurm.py::test_b", False),
    ],
)
def test_groups(one: str, other: str, together: bool) -> None:
    assert (group_of(one) == group_of(other)) is together


def test_what_runs_together_is_there() -> None:
    for name in TOGETHER:
        file, _, test = name.partition("::")
        (path,) = TESTS.rglob(f"{file}.py")
        assert f"def {test}" in path.read_text()
