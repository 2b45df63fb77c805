"""Which tests may run side by side, and in which order they are dealt out to pytest's processes (`pytest -n 4 --dist loadgroup`).

Every test has a group; the tests of one group run in one process, one after the other:

- the quick tests of a file are one group, so that what the file prepares is prepared once;
- a slow test is a group of its own, unless `@pytest.mark.xdist_group` names one: for tests that share something dear (a Slurm, a Ray, a
  compiled library), which each process would otherwise prepare for itself.

Long groups come first, so that no process is left with a long one at the end.
"""

from __future__ import annotations

from collections import Counter

import pytest

SLOW_SECONDS = 900  # a slow test may take as long, on a machine that is busy with other tests


def arrange(items: list[pytest.Item]) -> None:
    """Give every test its group and every slow one its time limit, and sort the groups by how long they are likely to take."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
        if not item.get_closest_marker("slow") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    sizes = Counter(_group(item) for item in items)
    items.sort(key=lambda item: (not item.get_closest_marker("slow"), -_limit(item), -sizes[_group(item)]))


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return mark.args[0] if mark else item.nodeid


def _limit(item: pytest.Item) -> float:
    """Its time limit in seconds, which the longest tests have of their own; 0 for the default."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else 0.0
