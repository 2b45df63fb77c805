"""What report.json warns of: studies that end well and may yet be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from penstock_server.engines.guards import study_warnings
from penstock_server.study import FieldSpec, SampleSpec
from penstock_server.telemetry import strict_json
from penstock_server.trainer_rank.data_warnings import data_warnings
from penstock_server.training import Normaliser
from penstock_server.validation.norms import Norms, truth_norms

SPEC = SampleSpec(("a",), (FieldSpec("U", 2, (50,)), FieldSpec("p", 1, (50,))))


def warnings_about(u: np.ndarray, p: np.ndarray) -> tuple[str, ...]:
    normaliser = Normaliser(SPEC)
    targets = np.concatenate([u.reshape(len(u), -1), p], axis=1).astype(np.float32)
    normaliser.update(np.zeros((len(u), 1, 2), np.float32), targets[:, None])
    return data_warnings(SimpleNamespace(over="production ended", rank=0), normaliser)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (normal(9, 50), []),
        (101325 + 500 * normal(9, 50), []),
        (101325 + 0.05 * normal(9, 50), ["field p varies by 0.05 about 101325, and samples are float32"]),
        (1e8 + 0.5 * normal(9, 50), ["field p never varies: it is 100000000 in all samples"]),
        (1e-50 * normal(9, 50), ["field p never varies: it is 0 in all samples"]),
        (np.full((9, 50), 1.16e-5), ["field p never varies: it is 1.16"]),
    ],
)
def test_fields_whose_variation_is_none_or_lost_are_named(p: np.ndarray, expected: list[str]) -> None:
    found = warnings_about(normal(9, 50, 2), p)
    assert len(found) == len(expected)
    assert all(line.startswith(text) for line, text in zip(found, expected, strict=True))


def test_a_component_that_never_varies_is_named() -> None:
    u = normal(9, 50, 2) * [1.0, 1e-20]
    (line,) = warnings_about(u, normal(9, 50))
    assert line.startswith("component 1 of field U never varies")


def study(policy: str = "reservoir") -> SimpleNamespace:
    return SimpleNamespace(
        parameters=SimpleNamespace(bounds={"a": (0, 1)}),
        solver=SimpleNamespace(validation_simulations=2, concurrency=4, simulations=20),
        training=SimpleNamespace(source=None),
        buffer=SimpleNamespace(policy=policy),
    )


def results(errors: np.ndarray, true: np.ndarray, capacity: int = 1000) -> SimpleNamespace:
    import torch

    truth = torch.from_numpy(true).float()
    rows = Norms.of(SPEC, torch.from_numpy(true + errors).float(), truth, truth_norms(SPEC, truth))
    rank = SimpleNamespace(
        fingerprints={},
        validation=SimpleNamespace(errors=rows.summary(SPEC)),
        buffer=SimpleNamespace(capacity=capacity),
    )
    counts = SimpleNamespace(finished=22)
    return SimpleNamespace(ranks=[rank], coordinator=SimpleNamespace(simulations=counts, expected=2000))


def test_errors_that_look_good_because_of_the_mean_are_named() -> None:
    true = normal(9, 150)
    true[:, 100:] = 101325 + 50 * true[:, 100:]
    errors = 0.1 * normal(9, 150)
    errors[:, 100:] = 101325 - true[:, 100:]  # p is predicted as its mean
    found = study_warnings(study(), results(errors, true))
    assert [line.split(":")[0] for line in found] == ["field p", "field p"]
    assert "no better than the mean" in found[0]
    assert "small because the field's mean is large" in found[1]
    assert study_warnings(study(), results(0.1 * normal(9, 150), normal(9, 150))) == []


def test_a_reservoir_smaller_than_what_runs_at_once_is_named() -> None:
    good = results(0.1 * normal(9, 150), normal(9, 150), capacity=399)
    (line,) = study_warnings(study(), good)
    assert line.startswith("the reservoir holds 399 samples, 4 simulations at once send 400")
    assert study_warnings(study("fifo"), good) == []


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path: Path) -> None:
    value = {"loss": float("nan"), "list": [1.5, float("inf"), {"x": -float("inf")}], "text": "NaN", "tuple": (1, None)}
    expected = {"loss": None, "list": [1.5, None, {"x": None}], "text": "NaN", "tuple": [1, None]}

    def refuse(text: str) -> None:
        raise AssertionError(text)

    assert json.loads(strict_json(value, indent=2), parse_constant=refuse) == expected
