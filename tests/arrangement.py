"""Which tests run side by side, and in which order they go to the processes of `pytest -n N --dist loadscope`.

Every test belongs to a group; the tests of one group run in one process, one after the other:

- the tests of a file are one group, so that what the file prepares is prepared once;
- in the folders named `APART` every test is a group of its own, except for the files of `TOGETHER`.

xdist's own groups (`xdist_group`) do nothing with pytest 9.2, of whose tests xdist 3.8 cannot change the names.
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

import pytest
from xdist.scheduler import LoadScopeScheduling

APART = ("studies", "chaos", "run")
# Files, or single tests of them, that share what is expensive to start: their group.
TOGETHER = {
    "test_joined_ray": "a Ray that runs already",
    "test_offline": "a recording",
    **dict.fromkeys(
        (
            "test_c_vectors",
            "test_c_install",
            "test_c_connect",
            "test_c_streams",
            "test_c_lost_answers",
            "test_c_bad_answers",
            "test_c_memory",
        ),
        "libpenstock's test programs",
    ),
    "test_native_solvers": "studies of native solvers",
    "test_trainer_ranks::test_solver_ranks_into_trainer_ranks_give_the_serial_fields_exactly": "studies of native solvers",
    "test_function_object_build": "the function object",
    "test_function_object_errors": "the function object",
    "test_function_object_fields": "the function object",
    "test_function_object_memory": "the function object",
    "test_slurm_nodes": "Slurm of several nodes",
    "test_slurm_together": "Slurm of several nodes",
}
SLOW_SECONDS = 900  # a slow test may take as long, on a machine that is busy with other tests


class Groups(LoadScopeScheduling):
    """Deals out whole groups, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """The group of a test, by its path and name."""
    path, _, test = nodeid.partition("::")
    file, name = PurePosixPath(path), test.partition("[")[0]
    for key in (file.stem, f"{file.stem}::{name}"):
        if key in TOGETHER:
            return TOGETHER[key]
    return nodeid if file.parent.name in APART else path


def arrange(items: list[pytest.Item]) -> None:
    """Give every slow test its time limit; sort long groups to the front, so that no process is left with one at the end."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
    sizes = Counter(group_of(item.nodeid) for item in items)
    items.sort(key=lambda item: (not item.get_closest_marker("slow"), -_limit(item), -sizes[group_of(item.nodeid)]))


def _limit(item: pytest.Item) -> float:
    """Its time limit in seconds, which the longest tests have of their own; 0 for the default."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else 0.0
