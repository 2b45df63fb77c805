"""kernel.c and its twin in numpy: the same copies, the same statistics, and as exact as float64 allows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kernel_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_library import compiled

from penstock_server import native
from penstock_server.native import plain
from penstock_server.native.compiled import Kernel

COLUMNS = 3


def test_both_forms_agree_and_every_processor_gives_the_same_bits(kernel: Kernel) -> None:
    assert kernel_cases.check(kernel) > 100


def test_the_sanitizers_find_nothing(tmp_path: Path) -> None:
    library = compiled(tmp_path, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    asan, ubsan = (
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    )
    done = subprocess.run(
        [sys.executable, kernel_cases.__file__, library],
        env={**os.environ, "LD_PRELOAD": f"{asan} {ubsan}", "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("cases\n")


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9000),
    st.sampled_from([1, 2, 3, 6]),
    st.floats(-1e6, 1e6),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 99),
)
def test_statistics_are_those_of_extended_precision(
    kernel: Kernel, points: int, components: int, offset: float, noise: float, kind: type, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(offset, noise, (points, components)).astype(kind)
    exact = values.astype(np.longdouble)
    mean = exact.mean(axis=0)
    m2 = ((exact - mean) ** 2).sum(axis=0)
    for found in (kernel.moments(values), plain.moments(values)):
        np.testing.assert_allclose(found.mean, mean.astype(float), rtol=1e-13, atol=1e-13 * noise)
        np.testing.assert_allclose(found.m2, m2.astype(float), rtol=1e-8, atol=1e-20 * (1 + offset**2))
        np.testing.assert_array_equal(found.low, values.min(axis=0))
        np.testing.assert_array_equal(found.high, values.max(axis=0))


def test_blocks_of_one_large_field_are_merged_exactly(kernel: Kernel) -> None:
    values = (1e6 + 1e-3 * np.random.default_rng(0).normal(size=(400_000, 1))).astype(np.float64)
    exact = values.astype(np.longdouble)
    m2 = float(((exact - exact.mean()) ** 2).sum())
    assert kernel.moments(values).m2[0] == pytest.approx(m2, rel=1e-8)
    assert plain.moments(values).m2[0] == pytest.approx(m2, rel=1e-8)


def test_the_same_values_give_the_same_bits_at_any_address(kernel: Kernel) -> None:
    values = np.random.default_rng(0).normal(size=(1, 30_000)).astype(np.float32)
    first = kernel.take(values, np.zeros((1, 30_000), np.float32), np.zeros(1, np.int64), 0, COLUMNS, 0.0)[0]
    for odd in range(1, 5):
        moved = np.frombuffer(b"?" * odd + values.tobytes(), np.float32, offset=odd).reshape(1, -1)
        again = kernel.take(moved, np.zeros((1, 30_009), np.float32), np.zeros(1, np.int64), odd, COLUMNS, 0.0)[0]
        kernel_cases.expect_same_bits(again, first)


def test_what_does_not_fit_into_float32_is_not_finite() -> None:
    values = np.array([[1.0, 3e38, 1e300, np.nan]])
    destination = np.zeros((1, 4), np.float32)
    statistics, wrong = native.take(values, destination, np.zeros(1, np.int64))
    assert (wrong, statistics.count) == (2, 0)
    _, wrong = native.take(values[:, :2], destination, np.zeros(1, np.int64), reference=-1e38)
    assert wrong == 1


def test_the_reference_is_subtracted_before_digits_are_lost() -> None:
    values = np.array([[101325.001, 101325.002]])
    destination = np.zeros((1, 2), np.float32)
    native.take(values, destination, np.zeros(1, np.int64), reference=101325.0)
    np.testing.assert_allclose(destination[0], [1e-3, 2e-3], rtol=1e-6)


def test_arguments_that_do_not_fit_are_refused_before_anything_is_written(kernel: Kernel) -> None:
    source, rows = np.ones((2, 6), np.float32), np.array([0, 1])
    for take in (kernel.take, plain.take):
        for outside in (-1, 3):
            destination = np.zeros((3, 6), np.float32)
            with pytest.raises(IndexError, match="of a destination of 3 rows"):
                take(source, destination, np.array([0, outside]), 0, 1, 0.0)
            assert not destination.any()
    destination = np.zeros((3, 7), np.float32)
    read_only = np.frombuffer(bytes(84), np.float32).reshape(3, 7)
    for wrong, place, columns in (
        (source, destination, {"column": 2}),
        (source, destination, {"column": -1}),
        (source, destination, {"components": 4}),
        (source, destination, {"components": 0}),
        (source[:, ::2], destination, {}),
        (source.astype(np.float16), destination, {}),
        (source.astype(">f4"), destination, {}),
        (source[0], destination, {}),
        (source[:1], destination, {}),
        (source, destination[:, :6], {}),
        (source, destination.astype(np.float64), {}),
        (source, read_only, {}),
    ):
        with pytest.raises((IndexError, ValueError), match=r"columns|source|rows|destination|whole points"):
            native.take(wrong, place, rows, **columns)
    with pytest.raises(ValueError, match="rows"):
        native.take(source, destination, rows.astype(np.int32))
    assert not destination.any()


@pytest.mark.parametrize(
    ("raw", "mean", "out"),
    [
        (np.zeros((2, 3), np.float64), np.zeros(3, np.float32), np.zeros((2, 3), np.float32)),
        (np.zeros((2, 3), np.float32), np.zeros(2, np.float32), np.zeros((2, 3), np.float32)),
        (np.zeros((2, 3), np.float32), np.zeros(3, np.float32), np.zeros((3, 2), np.float32)),
        (np.zeros((2, 6), np.float32)[:, ::2], np.zeros(3, np.float32), np.zeros((2, 3), np.float32)),
    ],
)
def test_other_rows_are_not_normalised(raw: Any, mean: Any, out: Any) -> None:
    with pytest.raises(ValueError, match="expected C-contiguous"):
        native.normalise(raw, mean, np.ones(3, np.float32), out)
    assert not out.any()
