"""The Sobol points are scipy's, bit for bit, and drawing them imports no scipy.stats."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import qmc

from penstock_server.study.sobol import sobol_points


def both(n: int, log2: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    ours = sobol_points(n, log2, np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,))))
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    return ours, qmc.Sobol(n, rng=rng).random_base2(log2)


@given(n=st.integers(1, 60), log2=st.integers(0, 9), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_points_are_those_of_scipy(n: int, log2: int, seed: int) -> None:
    ours, theirs = both(n, log2, seed)
    assert ours.dtype == theirs.dtype
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("n", "log2"), [(1000, 4), (1001, 4), (2, 16)])
def test_points_are_those_of_scipy_for_many_dimensions_and_many_points(n: int, log2: int) -> None:
    ours, theirs = both(n, log2, 3)
    assert np.array_equal(ours, theirs)


def test_a_draw_imports_no_scipy_stats() -> None:
    code = (
        "import sys, numpy as np\n"
        "from penstock_server.study.sobol import sobol_points\n"
        "sobol_points(5, 8, np.random.default_rng(1))\n"
        "print([name for name in sys.modules if name.startswith('scipy.stats')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]
