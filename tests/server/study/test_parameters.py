from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import kstest, qmc

from penstock_server.study import ParameterSpace, ParametersSection

SAMPLERS = ["uniform", "sobol", "halton", "latin-hypercube", "grid"]


def space(sampler: str = "uniform", **bounds: Any) -> ParameterSpace:
    return ParameterSpace(
        ParametersSection.model_validate({"sampler": sampler, **(bounds or {"a": (-1, 3), "b": (10, 20)})})
    )


def file_space(tmp_path: Path, text: str) -> ParameterSpace:
    (tmp_path / "points.csv").write_text(text)
    table = {"sampler": "file", "file": "points.csv", "a": (-1, 3), "b": (10, 20)}
    return ParameterSpace(ParametersSection.model_validate(table), tmp_path)


@given(
    sampler=st.sampled_from(SAMPLERS),
    number=st.integers(0, 70),
    n=st.integers(1, 9),
    seed=st.integers(0, 2**40),
    validation=st.booleans(),
)
def test_points_lie_within_the_bounds_and_follow_from_the_seed(
    sampler: str, number: int, n: int, seed: int, validation: bool
) -> None:
    one = space(sampler, **{f"p{i}": (i - 3.3, i - 3.3 + 10.0**-i) for i in range(n)})
    points = one.draw(number, seed, validation)
    assert points.shape == (number, n)
    assert points.dtype == np.float64
    assert ((points >= one.low) & (points <= one.high)).all()
    np.testing.assert_array_equal(points, one.draw(number, seed, validation))
    assert not any(one.outside(one.named(point)) for point in points)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_are_distinct_and_held_out_ones_are_others(sampler: str) -> None:
    training, validation = space(sampler).draw(50, 7), space(sampler).draw(50, 7, validation=True)
    together = np.concatenate([training, validation])
    assert len(np.unique(together, axis=0)) == 100
    if sampler != "grid":  # a grid has no seed
        assert not np.array_equal(training, space(sampler).draw(50, 8))


@pytest.mark.parametrize("sampler", ["uniform", "sobol", "halton"])
@pytest.mark.parametrize("validation", [False, True])
def test_a_larger_draw_begins_with_the_smaller_one(sampler: str, validation: bool) -> None:
    larger = space(sampler).draw(100, 3, validation)
    for number in (1, 2, 3, 16, 33, 64, 99):
        np.testing.assert_array_equal(space(sampler).draw(number, 3, validation), larger[:number])


@pytest.mark.parametrize("sampler", ["uniform", "sobol", "halton"])
def test_further_points_go_on_where_the_training_points_end(sampler: str) -> None:
    further = space(sampler).further(4, 3, training=30)
    np.testing.assert_array_equal(further, space(sampler).draw(34, 3)[30:])
    np.testing.assert_array_equal(further[:2], space(sampler).further(2, 3, training=30))


@pytest.mark.parametrize("sampler", ["latin-hypercube", "grid"])
def test_a_closed_set_of_points_has_no_further_ones(sampler: str) -> None:
    with pytest.raises(ValueError, match=f'sampler = "{sampler}", whose points are a closed set'):
        space(sampler).further(4, 3, training=30)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_spread_evenly_over_the_bounds(sampler: str) -> None:
    one = space(sampler)
    unit = (one.draw(400, 5) - one.low) / (one.high - one.low)
    for column in unit.T:
        assert kstest(column, "uniform").pvalue > 0.01


@pytest.mark.parametrize("sampler", ["sobol", "halton", "latin-hypercube"])
def test_low_discrepancy(sampler: str) -> None:
    def discrepancy(name: str) -> float:
        one = space(name)
        return float(
            np.mean([qmc.discrepancy(qmc.scale(one.draw(64, s), one.low, one.high, reverse=True)) for s in range(5)])
        )

    assert discrepancy(sampler) < 0.5 * discrepancy("uniform")


def test_latin_hypercube_has_a_point_in_every_slice() -> None:
    points = space("latin-hypercube", a=(0, 1), b=(0, 1), c=(0, 1)).draw(20, 1)
    for column in points.T:
        assert sorted((column * 20).astype(int)) == list(range(20))


def test_a_full_grid() -> None:
    points = space("grid").draw(9, 0)
    assert points.tolist() == [[a, b] for a in (-1, 1, 3) for b in (10, 15, 20)]


def test_a_thinned_grid_keeps_both_ends_and_its_levels() -> None:
    points = space("grid").draw(11, 0)  # of 16
    assert points[0].tolist() == [-1, 10]
    assert points[-1].tolist() == [3, 20]
    assert len(np.unique(points, axis=0)) == 11
    levels = np.unique(points[:, 1])
    np.testing.assert_allclose(levels, np.linspace(10, 20, 4))
    per_level = np.unique(points[:, 0], return_counts=True)[1]
    assert per_level.max() - per_level.min() <= 1


def test_a_grid_of_one_point_is_the_middle() -> None:
    assert space("grid").draw(1, 0).tolist() == [[1, 15]]


def test_a_grid_in_many_dimensions() -> None:
    points = space("grid", **{f"p{i}": (0, 1) for i in range(80)}).draw(5, 0)
    assert len(np.unique(points, axis=0)) == 5
    assert points[0].tolist() == [0] * 80
    assert points[-1].tolist() == [1] * 80


def test_a_negative_number_of_points() -> None:
    with pytest.raises(ValueError, match=r"-1 points .* expected 0 or more"):
        space().draw(-1, 0)


def test_points_from_a_file(tmp_path: Path) -> None:
    text = "\ufeffb, note ,a\n10,first,1\n\n 11 ,second,-1e0\n12,,3\n"
    one = file_space(tmp_path, text)
    assert one.draw(2, 0).tolist() == [[1, 10], [-1, 11]]
    assert one.draw(1, 99, validation=True, training=2).tolist() == [[3, 12]]
    assert one.draw(0, 0, validation=True, training=3).shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column a, b; its header names nothing, expected a, b"),
        ("a,c\n1,2\n", "line 1: no column b; its header names a, c, expected a, b"),
        ("a,b\n1,10\n1,ten\n", "line 3: b = 'ten', expected a number"),
        ("a,b\n1,10\n\n1\n", "line 4: b = '', expected a number"),
        ("a,b\n1,nan\n", r"line 2: b = nan, expected a value within its bounds \[10, 20\]"),
        (
            "a,b\n1,10\n3.5,11\n",
            r"line 3: a = 3.5, expected a value within its bounds \[-1, 3\]; correct the row or widen",
        ),
        ("a,b\n1,10\n", "has 1 rows of points: expected at least 2, as 2 simulations"),
    ],
)
def test_a_file_that_does_not_serve(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"points\.csv.*" + message):
        file_space(tmp_path, text).draw(2, 0)


def test_a_file_too_short_for_the_held_out_points(tmp_path: Path) -> None:
    one = file_space(tmp_path, "a,b\n1,10\n2,11\n3,12\n")
    with pytest.raises(
        ValueError, match=r"3 rows of points: expected at least 4, as 2 simulations .* after the 2 for training"
    ):
        one.draw(2, 0, validation=True, training=2)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    one = file_space(tmp_path, "")
    (tmp_path / "points.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"points\.csv' cannot be read as text: .*utf-8"):
        one.draw(1, 0)
    (tmp_path / "points.csv").unlink()
    with pytest.raises(ValueError, match=r"cannot be read as text: .*No such file"):
        one.draw(1, 0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(-1, 20, []), (3.1, 15, ["a"]), (-1.1, 9, ["a", "b"]), (float("nan"), 10, ["a"]), (0, float("inf"), ["b"])],
)
def test_outside(a: float, b: float, expected: list[str]) -> None:
    assert space().outside({"b": b, "a": a}) == expected


@pytest.mark.parametrize("values", [{}, {"a": 1.0}, {"a": 1.0, "b": 11.0, "c": 1.0}])
def test_outside_of_other_parameters(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a, b"):
        space().outside(values)


def test_seeds_are_whole_numbers_of_a_stream_of_their_own() -> None:
    one = ParameterSpace(ParametersSection.model_validate({"a": [0, 1], "field": "seed"}))
    assert one.names == ("a", "field")
    points = one.draw(200, 3)
    seeds = points[:, 1]
    np.testing.assert_array_equal(seeds, np.round(seeds))
    assert len(set(seeds)) == 200
    assert seeds.min() >= 0
    assert seeds.max() < 2**32
    np.testing.assert_array_equal(points[:50], one.draw(50, 3))
    assert not set(seeds) & set(one.draw(200, 3, validation=True)[:, 1])
    # Other parameters are where they would be without the seed.
    plain = ParameterSpace(ParametersSection.model_validate({"a": [0, 1]}))
    np.testing.assert_array_equal(points[:, 0], plain.draw(200, 3)[:, 0])
    assert ParameterSpace(ParametersSection.model_validate({"field": "seed"})).draw(4, 0).shape == (4, 1)


def test_a_large_parameter_is_as_many_numbers() -> None:
    section = ParametersSection.model_validate({"noise": {"bounds": [-1, 2], "size": 30}, "a": [0, 1]})
    assert section.names == (*(f"noise_{i}" for i in range(30)), "a")
    points = ParameterSpace(section).draw(64, 5)
    assert points.shape == (64, 31)
    assert points[:, :30].min() < -0.9
    assert points[:, :30].max() > 1.9


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"b": {"bounds": [5, 6], "size": 2}, "b_0": [0, 1]}, "b_0 is given twice"),
        ({"b_0": [0, 1], "b": {"bounds": [5, 6], "size": 2}}, "b_0 is given twice"),
        ({"a_1": "seed", "a": {"bounds": [5, 6], "size": 2}}, "a_1 is given twice"),
        ({"a": [1.0, 1.0]}, "no parameter: write it into the case"),
        ({"a": 3.0}, "no parameter: write it into the case"),
        ({"a": [1.0, float("nan")]}, "NaN is none"),
        ({"a": {"bounds": [1, 100], "log": True}}, "log-uniform ranges are not available yet"),
        ({"a": {"bounds": [1, 100], "scale": "log"}}, "log-uniform ranges are not available yet"),
        ({"a": {"bounds": [1, 9], "type": "int"}}, "integers are not available yet"),
        ({"a": [1, 2, 5]}, "choices are not available yet"),
        ({"a": ["laminar", "kOmega"]}, "choices are not available yet"),
        ({"a": {"bounds": [0, 1], "size": 70_000}}, "at most 65536 parameters are allowed"),
    ],
)
def test_parameters_that_cannot_be_are_refused_with_the_reason(section: dict, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        ParametersSection.model_validate(section)


def test_a_parameter_may_be_called_bounds() -> None:
    section = ParametersSection.model_validate({"bounds": [0, 1], "size": [2, 3]})
    assert section.bounds == {"bounds": (0, 1), "size": (2, 3)}
    assert ParametersSection.model_validate(section.model_dump()) == section
    vector = ParametersSection.model_validate({"bounds": {"bounds": [0, 1], "size": 2}})
    assert vector.names == ("bounds_0", "bounds_1")


def test_a_column_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("a, b, a\n1, 2, 3\n")
    section = ParametersSection(sampler="file", file="points.csv", bounds={"a": (0, 9), "b": (0, 9)})
    with pytest.raises(ValueError, match="column a is there twice"):
        ParameterSpace(section, tmp_path).draw(1, 0)
