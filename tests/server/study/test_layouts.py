"""The layout of a field that the study file gives, and a client announces flat."""

from __future__ import annotations

import re

import pytest

from penstock_client.errors import Refused
from penstock_client.payloads import FieldAnnouncement
from penstock_client.wire import Dtype
from penstock_server.study import agree
from penstock_server.study.data import FieldSection, SamplesSection
from penstock_server.study.samples import FieldSpec


def spec(announced: tuple[int, ...], components: int, section: dict[str, object]) -> FieldSpec:
    fields = [FieldAnnouncement("u", Dtype.FLOAT64, components, announced)]
    wanted = {"u": FieldSection.model_validate(section)}
    return agree(fields, wanted, ("a",), SamplesSection(), None).spec.fields[0]


@pytest.mark.parametrize("section", [{"shape": [10, 30]}, {"shape": [10, 30], "components": 3}])
def test_a_vector_announced_by_its_number_of_points_gets_the_study_files_shape(section: dict[str, object]) -> None:
    assert spec((300,), 3, section) == FieldSpec("u", 3, (10, 30))


@pytest.mark.parametrize(
    ("announced", "components", "section", "remedy"),
    [
        ((300, 3), 1, {"shape": [10, 30]}, "if the last 3 are components, set components = 3 as well"),
        ((30, 10), 1, {"shape": [10, 30]}, "set the shape that the solver announces, or announce one dimension"),
        ((299,), 3, {"shape": [10, 30]}, "299 points against 300; set the shape that the solver announces"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_with_the_remedy(
    announced: tuple[int, ...], components: int, section: dict[str, object], remedy: str
) -> None:
    with pytest.raises(Refused, match=re.escape(f"{tuple(section['shape'])}: {remedy}")):  # type: ignore[call-overload]
        spec(announced, components, section)
