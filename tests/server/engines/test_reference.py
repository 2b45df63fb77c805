"""A field that varies by 0.01 about 101325: lost in float32, learnt as the difference from a reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock_client import Field
from penstock_server.engines.inline import InlineEngine
from penstock_server.study import Study
from penstock_server.surrogate import Surrogate
from penstock_server.validation import FILE, read_snapshots
from waiting import PATIENCE

LEVEL = 101325.0
X = np.linspace(0.0, 1.0, 24)


class Pressure:
    """A small wave upon a large constant."""

    fields: Mapping[str, Field] = {"p": Field(shape=X.shape)}

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, dict[str, NDArray[np.float64]]]]:
        for step in range(10):
            yield float(step), {"p": LEVEL + variation(parameters["a"], step)}


def variation(a: float, step: int) -> NDArray[np.float64]:
    return 0.01 * a * np.sin(2 * np.pi * X + 0.2 * step)


def run(directory: Path, **field: float) -> dict[str, Any]:
    study = Study.model_validate(
        {
            "study": {"name": "pressure", "engine": "inline", "seed": 1},
            "parameters": {"a": [0.5, 1.5]},
            "solver": {"adapter": "test_reference:Pressure", "simulations": 20, "validation_simulations": 3},
            "fields": {"p": field},
            "model": {"hidden": [32]},
            "training": {"max_batches": 400, "min_batches": 400, "batch_size": 16, "device": "cpu"},
        }
    )
    directory.mkdir()
    engine = InlineEngine(study, directory, threads=1, solver=Pressure())
    engine.start()
    assert engine.wait(PATIENCE)
    return engine.close()


def test_without_a_reference_the_report_warns_and_names_the_key(tmp_path: Path) -> None:
    report = run(tmp_path / "run")
    (warning,) = [line for line in report["warnings"] if "float32" in line]
    assert "set [fields.p] reference = 101325, which is subtracted before" in warning
    assert report["references"] == {}


def test_with_a_reference_the_variation_is_learnt_and_predicted_in_float64(tmp_path: Path) -> None:
    report = run(tmp_path / "run", reference=LEVEL)
    assert report["warnings"] == []
    assert report["references"] == {"p": LEVEL}
    assert report["validation"]["relative_l2"] < 0.5
    assert read_snapshots(tmp_path / "run" / FILE).items[0].references == {"p": LEVEL}
    predicted = Surrogate.load(tmp_path / "run").predict({"a": 1.2}, [4]).fields["p"]
    true = variation(1.2, 4)
    assert predicted.dtype == np.float64
    assert np.linalg.norm(predicted[0, :, 0] - LEVEL - true) < 0.5 * np.linalg.norm(true)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), True])
def test_a_reference_is_a_finite_number(wrong: object) -> None:
    data = {
        "study": {"name": "pressure"},
        "parameters": {"a": [0.5, 1.5]},
        "solver": {"adapter": "test_reference:Pressure", "simulations": 20},
        "fields": {"p": {"reference": wrong}},
    }
    with pytest.raises(ValueError, match=r"fields\.p\.reference"):
        Study.model_validate(data)
