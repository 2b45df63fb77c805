"""A server that fails in an inline study: the report says why, and no simulation is blamed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from penstock_server.engines.inline import InlineEngine
from penstock_server.study import SampleSpec, Study
from penstock_server.training import Normaliser
from penstock_solvers.problems.heat2d import Heat2D
from waiting import PATIENCE


class FailsAtThirdBatch(torch.nn.Module):
    """A model whose third forward pass raises."""

    def __init__(self, spec: SampleSpec) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(spec.n_inputs, spec.width)
        self.calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        if self.calls == 3:
            raise KeyError("the third batch")
        return self.layer(inputs)


class CannotBeMade(torch.nn.Module):
    """A model that raises when it is made."""

    def __init__(self, spec: SampleSpec) -> None:
        raise ZeroDivisionError("no such layer")


def run(study: Study, directory: Path) -> dict[str, Any]:
    directory.mkdir()
    engine = InlineEngine(study, directory, threads=1, solver=Heat2D(**study.solver.options))
    engine.start()
    assert engine.wait(PATIENCE)
    return engine.close()


def check_cause(report: dict[str, Any], cause: str) -> None:
    assert report["status"] == "failed"
    assert cause in report["message"]
    assert "WireError" not in str(report)
    assert report["failures"] == {}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_model_that_fails_at_its_third_batch(concurrency: int, heat_study: Any, tmp_path: Path) -> None:
    study = heat_study(
        model={"name": "test_inline_failures:FailsAtThirdBatch"}, solver={"concurrency": concurrency, "retries": 0}
    )
    check_cause(run(study, tmp_path / "run"), "the third batch")


def test_a_model_that_cannot_be_made(heat_study: Any, tmp_path: Path) -> None:
    report = run(heat_study(model={"name": "test_inline_failures:CannotBeMade"}), tmp_path / "run")
    check_cause(report, "no such layer")


def test_statistics_that_raise(heat_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def update(*_: Any) -> None:
        raise KeyError("broken statistics")

    monkeypatch.setattr(Normaliser, "merge", update)
    check_cause(run(heat_study(), tmp_path / "run"), "broken statistics")
