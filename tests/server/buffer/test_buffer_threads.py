"""A producer thread and a training thread at the buffer: who waits, who is woken, and that nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from buffers import in_memory
from penstock_server.buffer import Buffer
from penstock_server.study import FieldSpec, SampleSpec
from waiting import PATIENCE, wait_for

SPEC = SampleSpec(parameters=(), fields=(FieldSpec("u", 1, (50,)),))


def put(buffer: Buffer, identifier: int) -> bool:
    slot = buffer.reserve()
    slot.inputs[:] = identifier
    slot.targets[:] = identifier
    slot.simulation = identifier
    return buffer.commit(slot)


def produce(buffer: Buffer, number: int) -> None:
    for identifier in range(number):
        assert put(buffer, identifier)
    buffer.end_production()


def consume(buffer: Buffer, batch_size: int) -> list[int]:
    """Draws until the buffer has drained; every row must be one whole sample."""
    drawn = []
    while (batch := buffer.get(batch_size)) is not None:
        assert bool((batch.targets == batch.inputs).all()), "a sample was overwritten while it was gathered"
        drawn += batch.inputs[:, 0, 0].int().tolist()
    return drawn


def start(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Runs the call in a thread that, should it hang, does not keep the test run from ending."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def is_waiting(buffer: Buffer, what: str) -> bool:
    """Whether somebody waits right now: only then does the figure grow between two looks."""
    before = getattr(buffer.stats(), what)
    return bool(getattr(buffer.stats(), what) > before)


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_everything_put_is_trained_on(policy: Any, ratio: float) -> None:
    buffer = Buffer(
        SPEC, policy=policy, capacity=20, watermark=5, presentations_per_sample=ratio, batch_size=8, spare=2, seed=1
    )
    producer = start(produce, buffer, 500)
    drawn = consume(buffer, 8)
    producer.result(timeout=PATIENCE)
    stats = buffer.stats()
    assert set(drawn) == set(range(500))
    assert stats.trained_unique == stats.received == 500
    assert stats.presentations == len(drawn)
    if policy == "fifo":
        assert drawn == list(range(500))
    if policy == "firo":
        assert len(drawn) == 500
        assert drawn != sorted(drawn)


@pytest.mark.parametrize("ratio", [0.5, 2.0, 5.0])
def test_the_limiter_holds_the_ratio_and_never_deadlocks(ratio: float) -> None:
    buffer = Buffer(
        SPEC, policy="reservoir", capacity=30, watermark=10, presentations_per_sample=ratio, batch_size=4, seed=2
    )
    producer = start(produce, buffer, 400)
    drawn = consume(buffer, 4)
    producer.result(timeout=PATIENCE)
    assert set(drawn) == set(range(400))
    # Of 400 samples all but the 11 that training waits for count, and it may lag by one batch.
    assert len(drawn) >= ratio * (400 - 11) - 4


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
def test_a_full_unseen_buffer_blocks_its_producer_until_training_draws(policy: Any) -> None:
    buffer = Buffer(SPEC, policy=policy, capacity=6, watermark=2, batch_size=3)
    for identifier in range(6):
        assert put(buffer, identifier)
    extra = start(put, buffer, 6)
    wait_for(lambda: is_waiting(buffer, "put_blocked_seconds"))
    assert not extra.done()
    assert buffer.stats().unseen == buffer.stats().population == 6
    assert buffer.get(3) is not None
    assert extra.result(timeout=PATIENCE) is True
    stats = buffer.stats()
    assert stats.received == 7
    assert stats.evicted == (1 if policy == "reservoir" else 0)
    assert stats.put_blocked_seconds > 0
    assert not is_waiting(buffer, "put_blocked_seconds")


@pytest.mark.parametrize(("policy", "needed"), [("fifo", 3), ("firo", 7), ("reservoir", 5)])
def test_training_waits_for_the_watermark(policy: Any, needed: int) -> None:
    buffer = Buffer(SPEC, policy=policy, capacity=10, watermark=4, batch_size=3)
    batch = start(buffer.get, 3)
    for identifier in range(needed - 1):
        put(buffer, identifier)
    wait_for(lambda: is_waiting(buffer, "stall_seconds"))
    assert not batch.done()
    put(buffer, needed - 1)
    assert len(batch.result(timeout=PATIENCE)) == 3
    assert buffer.stats().stall_seconds > 0


def test_the_limiter_releases_a_waiting_producer_when_production_ends() -> None:
    buffer = Buffer(SPEC, policy="reservoir", capacity=50, presentations_per_sample=1.0, batch_size=2)
    for identifier in range(3):
        put(buffer, identifier)
    held = start(put, buffer, 3)
    wait_for(lambda: is_waiting(buffer, "put_blocked_seconds"))
    assert not held.done()
    buffer.end_production()
    assert held.result(timeout=PATIENCE) is True
    assert sorted(consume(buffer, 2)) == [0, 1, 2, 3]


def test_the_end_of_production_lifts_the_watermark_for_waiting_training() -> None:
    buffer = Buffer(SPEC, policy="reservoir", capacity=50, watermark=20, batch_size=4)
    for identifier in range(6):
        put(buffer, identifier)
    drawn = start(consume, buffer, 4)
    wait_for(lambda: is_waiting(buffer, "stall_seconds"))
    buffer.end_production()
    assert sorted(drawn.result(timeout=PATIENCE)) == list(range(6))


def test_the_end_of_an_empty_production_releases_waiting_training() -> None:
    buffer = Buffer(SPEC, policy="reservoir", capacity=5, batch_size=4)
    drawn = start(consume, buffer, 4)
    wait_for(lambda: is_waiting(buffer, "stall_seconds"))
    buffer.end_production(drain=False)
    assert drawn.result(timeout=PATIENCE) == []
    assert buffer.drained


def test_a_sample_still_waiting_for_room_at_the_end_is_trained_on() -> None:
    for _ in range(20):  # the thread that puts must win its race with the one that drains, whichever runs first
        buffer = Buffer(SPEC, policy="fifo", capacity=2, batch_size=2)
        for identifier in range(2):
            put(buffer, identifier)
        extra = start(put, buffer, 2)
        wait_for(lambda buffer=buffer: is_waiting(buffer, "put_blocked_seconds"))
        buffer.end_production()
        assert not buffer.drained
        assert consume(buffer, 2) == [0, 1, 2]
        assert extra.result(timeout=PATIENCE) is True


def test_closing_wakes_everybody() -> None:
    full = Buffer(SPEC, policy="fifo", capacity=1, batch_size=1)
    put(full, 0)
    producer = start(put, full, 1)
    empty = Buffer(SPEC, policy="fifo", capacity=1, batch_size=1)
    training = start(empty.get, 1)
    wait_for(lambda: is_waiting(full, "put_blocked_seconds") and is_waiting(empty, "stall_seconds"))
    full.close()
    empty.close()
    assert producer.result(timeout=PATIENCE) is False
    assert training.result(timeout=PATIENCE) is None
    assert full.closed
    assert put(full, 2) is False
    assert full.get(1) is None
    assert full.try_commit(full.reserve()) is False
    assert full.stats().received == 1


def test_a_checkpoint_taken_while_samples_arrive_is_whole() -> None:
    buffer = Buffer(SPEC, policy="reservoir", capacity=40, batch_size=4, spare=2)
    producer = start(produce, buffer, 600)
    states = []
    training = start(consume, buffer, 4)
    while not training.done():
        states.append(in_memory(buffer.state_dict()))
    producer.result(timeout=PATIENCE)
    assert len(states) > 5
    for state in states:
        arrays, counters = state["arrays"], state["meta"]["counters"]
        assert (arrays["inputs"][:, 0, 0] == arrays["simulation"]).all()
        assert (arrays["targets"][:, 0, :] == arrays["simulation"][:, None]).all()
        assert arrays["times_seen_left"].sum() + len(arrays["inputs"]) == counters["received"]
        seen_left = (arrays["times_seen_left"] * range(len(arrays["times_seen_left"]))).sum()
        assert seen_left + arrays["times_seen"].sum() == counters["presentations"]
        assert sorted(arrays["arrival"]) == list(range(len(arrays["inputs"])))


def put_blocks(buffer: Buffer, number: int, length: int) -> None:
    for first in range(0, number, length):
        block = buffer.reserve_many(min(length, number - first))
        for sample, row in enumerate(block.rows, first):
            block.inputs[row] = block.targets[row] = sample
        assert buffer.commit_many(block) == len(block)
    buffer.end_production()


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
@pytest.mark.parametrize("length", [3, 30])  # a block of 30 has memory of its own, and never has room at once
def test_blocks_wait_for_room_as_single_samples_do(policy: Any, length: int) -> None:
    buffer = Buffer(
        SPEC, policy=policy, capacity=20, watermark=5, presentations_per_sample=1.0, batch_size=8, spare=4, seed=1
    )
    producer = start(put_blocks, buffer, 500, length)
    drawn = consume(buffer, 8)
    producer.result(timeout=PATIENCE)
    stats = buffer.stats()
    assert set(drawn) == set(range(500))
    assert stats.trained_unique == stats.received == 500
    if length == 30:
        assert stats.spilled == 500
    if policy == "fifo":
        assert drawn == list(range(500))


def test_closing_ends_a_block_that_waits() -> None:
    buffer = Buffer(SPEC, policy="fifo", capacity=2, batch_size=1)
    block = buffer.reserve_many(5)
    producer = start(buffer.commit_many, block)
    wait_for(lambda: is_waiting(buffer, "put_blocked_seconds"))
    assert buffer.stats().received == 2
    buffer.close()
    assert producer.result(timeout=PATIENCE) == 2
    with pytest.raises(ValueError, match="committed or discarded before"):
        buffer.discard_many(block, 2)
    assert buffer._contents.population.taken == 0
