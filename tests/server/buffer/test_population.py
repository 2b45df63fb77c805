"""The states of the slots against a plain model, and what a population refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock_server.buffer.population import Population


class PopulationMachine(RuleBasedStateMachine):
    """The model is two dicts in order of arrival, slot -> whether it has been seen, and the set of taken slots."""

    @initialize(slots=st.integers(1, 9))
    def make(self, slots: int) -> None:
        self.slots = slots
        self.population = Population(slots)
        self.seen: dict[int, bool] = {}
        self.taken: list[int] = []

    def some(self, data: st.DataObject, of: list[int]) -> list[int]:
        number = data.draw(st.integers(1, len(of)))
        return data.draw(st.permutations(of))[:number]

    @precondition(lambda self: len(self.seen) + len(self.taken) < self.slots)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, self.slots - len(self.seen) - len(self.taken)))
        taken = self.population.take_free(number)
        assert len(set(taken)) == number
        assert not set(taken) & {*self.seen, *self.taken}
        self.taken += taken

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), keep=st.booleans())
    def insert_or_give_back(self, data: st.DataObject, keep: bool) -> None:
        slots = self.some(data, self.taken)
        self.taken = [slot for slot in self.taken if slot not in slots]
        if keep:
            self.population.insert(slots)
            self.seen |= dict.fromkeys(slots, False)
        else:
            self.population.give_back(slots)

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        slots = data.draw(st.lists(st.sampled_from(list(self.seen)), min_size=1, max_size=5))
        assert self.population.mark_seen(slots) == sum(not self.seen[slot] for slot in set(slots))
        self.seen |= dict.fromkeys(slots, True)

    @precondition(lambda self: any(self.seen.values()))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        slots = self.some(data, [slot for slot, seen in self.seen.items() if seen])
        self.population.remove(slots)
        self.seen = {slot: seen for slot, seen in self.seen.items() if slot not in slots}
        self.taken += slots

    @precondition(lambda self: any(self.seen.values()))
    @rule(data=st.data(), own=st.booleans())
    def replace(self, data: st.DataObject, own: bool) -> None:
        most = min(self.population.seen, len(self.taken) if own else self.slots)
        if most == 0:
            return
        number = data.draw(st.integers(1, most))
        positions = [
            data.draw(st.integers(self.population.unseen + i, len(self.population) - 1)) for i in range(number)
        ]
        slots = self.taken[:number] if own else None
        removed = self.population.replace(positions, slots)
        assert len(set(removed)) == number
        assert all(self.seen.pop(slot) for slot in removed)
        if slots is None:
            self.seen |= dict.fromkeys(removed, False)
        else:
            self.taken = self.taken[number:] + removed
            self.seen |= dict.fromkeys(slots, False)

    @invariant()
    def states_agree(self) -> None:
        population = self.population
        held = population.held().tolist()
        assert len(population) == len(held) == len(self.seen)
        assert population.taken == len(self.taken)
        assert population.free == self.slots - len(held) - len(self.taken)
        assert [self.seen[slot] for slot in held] == [False] * population.unseen + [True] * population.seen
        assert all(population.is_unseen(slot) != seen for slot, seen in self.seen.items())
        arrivals = list(self.seen)
        for number in (0, len(arrivals) // 2, len(arrivals)):
            assert population.oldest(number).tolist() == arrivals[:number]
        assert sorted(held, key=population.arrived.values.__getitem__) == arrivals


TestPopulationMachine = PopulationMachine.TestCase
TestPopulationMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_an_unseen_sample_is_never_removed() -> None:
    population = Population(3)
    (slot,) = population.take_free(1)
    population.insert([slot])
    with pytest.raises(ValueError, match=f"slot {slot} holds no sample that has been seen"):
        population.remove([slot])
    assert population.mark_seen([slot, slot]) == 1
    population.remove([slot])
    with pytest.raises(ValueError, match=f"slot {slot} holds no sample that has been seen"):
        population.remove([slot])
    population.give_back([slot])
    assert (len(population), population.free) == (0, 3)


def test_no_more_slots_than_are_free() -> None:
    population = Population(2)
    population.take_free(1)
    with pytest.raises(IndexError, match="1 slots are free, 2 were asked for"):
        population.take_free(2)
    assert (population.taken, population.free) == (1, 1)


@pytest.mark.parametrize(
    ("unseen", "arrival"), [(3, [0, 1]), (-1, [0, 1]), (1, [0, 2]), (1, [0, 0]), (0, [0, 1, 2, 3])]
)
def test_numbers_that_do_not_agree_are_refused(unseen: int, arrival: list[int]) -> None:
    with pytest.raises(ValueError, match="do not agree"):
        Population.restored(3, unseen, np.array(arrival))
