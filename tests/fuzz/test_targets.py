"""Every target with inputs from hypothesis: a few seconds of what `make fuzz` does at length."""

from __future__ import annotations

import gc
import random

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import MAX_BYTES, SHARES, TARGETS, measured

EXAMPLES = {"connect_file": 40, "checkpoint": 25}  # those that write files; of the others 120
LONG = 60  # long inputs, as the fuzzer makes them, which hypothesis does not


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_arrives_does_harm(name: str) -> None:
    @settings(
        max_examples=EXAMPLES.get(name, 120),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(max_size=400))
    def check(data: bytes) -> None:
        TARGETS[name](data)

    check()
    numbers = random.Random(name)
    messages = 0
    for _ in range(LONG if name not in EXAMPLES else 5):
        messages += TARGETS[name](numbers.randbytes(MAX_BYTES))
    for _ in range(3):
        messages += measured(TARGETS[name], numbers.randbytes(MAX_BYTES))
    assert messages > (100 if name not in EXAMPLES else 40)


@pytest.mark.parametrize("name", ["ingest", "coordinator"])
def test_messages_leave_no_memory_behind(name: str) -> None:
    """The same inputs again and again, without the fuzzer, whose own corpus grows."""
    numbers = random.Random(name)
    inputs = [numbers.randbytes(MAX_BYTES) for _ in range(40)]

    def all_of_them() -> None:
        for data in inputs:
            TARGETS[name](data)

    all_of_them()  # what is set up once
    process, growth = psutil.Process(), []
    for _ in range(3):
        before = process.memory_info().rss
        for _ in range(4):
            all_of_them()
        gc.collect()
        growth.append(process.memory_info().rss - before)
    # A leak grows each time; the heap of a process that has run other tests may grow once.
    assert min(growth) < 4 * 2**20, growth


def test_every_target_has_its_share() -> None:
    assert SHARES.keys() == TARGETS.keys()
    assert sum(SHARES.values()) == pytest.approx(1)
