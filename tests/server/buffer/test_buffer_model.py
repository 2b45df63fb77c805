"""The buffer against a plain model: hypothesis drives both through random sequences of calls."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from buffers import in_memory
from penstock_server.buffer import Buffer, BufferState, Slot
from penstock_server.study import FieldSpec, SampleSpec

SPEC = SampleSpec(parameters=("a",), fields=(FieldSpec("u", 1, (3,)),), window=2)


def fill(slot: Slot, identifier: int) -> None:
    """A sample whose every number follows from its identifier."""
    slot.simulation, slot.sample = identifier, 2 * identifier
    slot.inputs[:] = np.arange(4, dtype=np.float32).reshape(2, 2) + 10 * identifier
    slot.targets[:] = np.arange(6, dtype=np.float32).reshape(2, 3) - 10 * identifier


def identify(inputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> list[int]:
    """The identifiers of samples (n, 2, 2), (n, 2, 3), each number of them checked."""
    identifiers = [round(float(rows[0, 0]) / 10) for rows in inputs]
    for identifier, got_inputs, got_targets in zip(identifiers, inputs, targets, strict=True):
        expected = Buffer(SPEC, policy="fifo", capacity=1, batch_size=1).reserve()
        fill(expected, identifier)
        np.testing.assert_array_equal(got_inputs, expected.inputs)
        np.testing.assert_array_equal(got_targets, expected.targets)
    return identifiers


class BufferMachine(RuleBasedStateMachine):
    """The model is two dicts: times seen of every sample that is in the buffer, and of every one that has left."""

    @initialize(
        policy=st.sampled_from(["fifo", "firo", "reservoir"]),
        room=st.integers(0, 6),
        watermark=st.integers(0, 4),
        batch_size=st.integers(1, 4),
        ratio=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
        spare=st.integers(1, 3),
        seed=st.integers(0, 5),
    )
    def make(
        self, policy: str, room: int, watermark: int, batch_size: int, ratio: float, spare: int, seed: int
    ) -> None:
        self.policy, self.watermark, self.batch_size = policy, watermark, batch_size
        self.needed = {"fifo": batch_size, "firo": watermark + batch_size, "reservoir": watermark + 1}[policy]
        self.capacity = self.needed + room
        self.ratio = ratio if policy == "reservoir" else min(ratio, 1.0)
        self.options: dict[str, Any] = {
            "policy": policy,
            "capacity": self.capacity,
            "watermark": watermark,
            "presentations_per_sample": self.ratio,
            "batch_size": batch_size,
            "seed": seed,
            "spare": spare,
        }
        self.buffer = Buffer(SPEC, **self.options)
        self.filling: list[Slot] = []
        self.present: dict[int, int] = {}  # in order of arrival
        self.left: dict[int, int] = {}
        self.number = 0
        self.ended = self.draining = False
        self.checkpoint: tuple[BufferState, BufferState] | None = None

    @property
    def presentations(self) -> int:
        return sum(self.present.values()) + sum(self.left.values())

    @property
    def may_draw(self) -> bool:
        return len(self.present) >= (1 if self.ended else self.needed)

    @property
    def may_put(self) -> bool:
        full = len(self.present) == self.capacity
        if full and not (self.policy == "reservoir" and any(self.present.values())):
            return False
        received = len(self.present) + len(self.left)
        early = self.ratio * (received + 1 - self.needed) > self.presentations + self.batch_size
        if early and not self.ended:
            assert self.may_draw, "the limiter holds a put that training needs"
        return self.ended or not early

    @rule()
    def reserve(self) -> None:
        slot = self.buffer.reserve()
        fill(slot, self.number)
        self.number += 1
        self.filling.append(slot)

    @precondition(lambda self: self.filling)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        slot = self.filling[data.draw(st.integers(0, len(self.filling) - 1))]
        full = len(self.present) == self.capacity
        may_put = self.may_put
        assert self.buffer.try_commit(slot) == may_put
        if may_put:
            self.filling.remove(slot)
            if full:
                self.forget_evicted()
            self.present[slot.simulation] = 0

    def forget_evicted(self) -> None:
        held = set(self.buffer.state_dict()["arrays"]["simulation"].tolist())
        (evicted,) = self.present.keys() - held
        assert self.present[evicted] > 0, "an unseen sample was evicted"
        self.left[evicted] = self.present.pop(evicted)

    @precondition(lambda self: self.filling)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        self.buffer.discard(self.filling.pop(data.draw(st.integers(0, len(self.filling) - 1))))

    @rule(data=st.data())
    def draw(self, data: st.DataObject) -> None:
        self.draw_checked(data.draw(st.integers(1, self.batch_size)))

    def draw_checked(self, size: int) -> None:
        needed = {"fifo": size, "firo": self.watermark + size, "reservoir": self.watermark + 1}[self.policy]
        batch = self.buffer.try_get(size)
        if len(self.present) < (1 if self.ended else needed):
            assert batch is None
            return
        assert batch is not None
        drawn = identify(batch.inputs.numpy(), batch.targets.numpy())
        assert set(drawn) <= self.present.keys()
        removes = self.policy != "reservoir" or self.draining
        if removes:
            assert len(drawn) == len(set(drawn)) == min(size, len(self.present))
        else:
            assert len(drawn) == size
        if self.policy == "fifo":
            assert drawn == list(self.present)[:size]
        for identifier in drawn:
            self.present[identifier] += 1
            if removes:
                self.left[identifier] = self.present.pop(identifier)

    @rule(drain=st.booleans())
    def end(self, drain: bool) -> None:
        self.buffer.end_production(drain)
        self.ended = True
        self.draining |= drain or self.policy != "reservoir"

    @rule()
    def begin_checkpoint(self) -> None:
        """Read later, whatever happens until then."""
        self.checkpoint = (self.buffer.state_dict(), in_memory(self.buffer.state_dict()))

    @precondition(lambda self: self.checkpoint is not None)
    @rule()
    def read_checkpoint(self) -> None:
        assert self.checkpoint is not None
        later, at_once = (in_memory(state)["arrays"] for state in self.checkpoint)
        np.testing.assert_array_equal(later["inputs"], at_once["inputs"])
        np.testing.assert_array_equal(later["targets"], at_once["targets"])
        self.checkpoint = None

    @precondition(lambda self: not self.filling)
    @rule(sizes=st.lists(st.integers(1, 4), max_size=4))
    def restore(self, sizes: list[int]) -> None:
        """A copy made from the state, through JSON, goes on exactly as the original, which is thrown away."""
        state = in_memory(self.buffer.state_dict())
        state["meta"] = json.loads(json.dumps(state["meta"]))
        original, self.buffer = self.buffer, Buffer(SPEC, **self.options)
        self.buffer.load_state_dict(state)
        twin = Buffer(SPEC, **self.options)
        twin.load_state_dict(state)
        if self.ended:
            for buffer in (self.buffer, original, twin):
                buffer.end_production(self.draining)
        for size in sizes:
            ours, theirs = original.try_get(min(size, self.batch_size)), twin.try_get(min(size, self.batch_size))
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                np.testing.assert_array_equal(ours.inputs, theirs.inputs)
                np.testing.assert_array_equal(ours.targets, theirs.targets)

    @invariant()
    def figures_agree(self) -> None:
        stats = self.buffer.stats()
        everyone = [*self.present.values(), *self.left.values()]
        assert stats.population == len(self.present) <= self.capacity
        assert stats.unseen == sum(times == 0 for times in self.present.values())
        assert all(self.left.values()), "a sample has left unseen"
        assert stats.received == len(everyone)
        assert stats.presentations == sum(everyone)
        assert stats.trained_unique == sum(times > 0 for times in everyone)
        assert stats.times_seen == {times: everyone.count(times) for times in set(everyone)}
        assert stats.mean_times_seen == (sum(everyone) / len(everyone) if everyone else 0)
        assert stats.drained == self.buffer.drained == (self.ended and not self.present)

    @invariant()
    def somebody_may_go_on(self) -> None:
        """Were neither a put nor a draw possible while production runs, both sides would wait for ever."""
        assert self.may_put or self.may_draw

    @invariant()
    def state_is_whole(self) -> None:
        arrays = in_memory(self.buffer.state_dict())["arrays"]
        held = identify(arrays["inputs"], arrays["targets"])
        assert held == arrays["simulation"].tolist()
        assert [2 * identifier for identifier in held] == arrays["sample"].tolist()
        assert [self.present[identifier] for identifier in held] == arrays["times_seen"].tolist()
        assert [held[position] for position in arrays["arrival"]] == list(self.present)

    def teardown(self) -> None:
        """The end: everything still held is trained on once more, and nothing is left out."""
        if not hasattr(self, "buffer"):
            return
        for slot in self.filling:
            self.buffer.discard(slot)
        self.end(drain=True)
        before = dict(self.present)
        while self.present:
            self.draw_checked(self.batch_size)
        assert all(self.left[identifier] == times + 1 for identifier, times in before.items())
        assert self.buffer.try_get(1) is None
        self.figures_agree()


TestBufferMachine = BufferMachine.TestCase
TestBufferMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
