"""When a launcher gives up."""

from __future__ import annotations

from penstock.workers import QuickDeaths


def test_deaths_in_a_row_are_too_many_and_a_long_life_or_a_good_end_breaks_the_row() -> None:
    deaths = QuickDeaths(3, 20.0, lambda: 0)
    for break_the_row in (deaths.lived, lambda: deaths.died(20.0)):
        deaths.died(1.0)
        deaths.died(1.0)
        assert not deaths.too_many
        break_the_row()
        assert deaths.number == 0
    for _ in range(3):
        deaths.died(1.0)
    assert deaths.too_many


def test_deaths_between_which_simulations_finish_are_never_too_many() -> None:
    finished = iter(range(1, 100))
    deaths = QuickDeaths(3, 20.0, lambda: next(finished))
    for _ in range(50):
        deaths.died(1.0)
        assert deaths.number == 1
