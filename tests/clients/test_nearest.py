"""Suggestions for misspelt names."""

from __future__ import annotations

import pytest

from penstock_client.nearest import close_names, did_you_mean, nearest


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("viscosty", "did you mean 'viscosity'?"),
        ("RHO", "did you mean 'rho'?"),
        ("pressure", "expected one of viscosity, rho, U, ..."),
    ],
)
def test_nearest_suggests_a_name_or_lists_the_first_ones(name: str, hint: str) -> None:
    assert nearest(name, ["viscosity", "rho", "U", "u"], shown=3) == hint


def test_without_a_similar_name_the_caller_chooses_the_text() -> None:
    assert did_you_mean("pressure", ["rho"], "remove it") == "remove it"
    assert did_you_mean("pressure", []) == ""


def test_names_that_differ_only_by_case_are_all_suggested() -> None:
    assert close_names("u", ["U", "u", "rho"], count=3) == ["U", "u"]
