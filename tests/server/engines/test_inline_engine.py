"""Whole studies in one process: the same seed gives the same weights and the same accounting twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from penstock_server.checkpoint import load_latest
from penstock_server.engines.inline import InlineEngine
from penstock_server.study import Study
from penstock_solvers.problems.heat2d import Heat2D
from resumed import accounting
from waiting import PATIENCE


def run(study: Study, directory: Path, solver: type[Heat2D] = Heat2D) -> dict[str, Any]:
    directory.mkdir()
    engine = InlineEngine(study, directory, threads=1, solver=solver(**study.solver.options))
    engine.start()
    assert engine.wait(PATIENCE)
    return engine.close()


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_latest(directory / "checkpoints").parts["trainer"]["model"]


@pytest.mark.parametrize("policy", ["fifo", "firo", "reservoir"])
def test_every_sample_is_received_once_and_trained_on(policy: str, heat_study, tmp_path: Path) -> None:
    report = run(heat_study(buffer={"policy": policy}), tmp_path / "run")
    samples = report["samples"]
    assert report["status"] == "finished"
    assert samples["expected"] == samples["unique"] == samples["trained_unique"] == 6 * 15
    assert samples["rejected"] == samples["duplicates_dropped"] == samples["incomplete_dropped"] == 0
    assert report["validation"]["samples"] == 2 * 15
    if policy != "reservoir":
        assert samples["presentations"] == 6 * 15


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_the_same_accounting(heat_study, tmp_path: Path) -> None:
    first, second = (run(heat_study(), tmp_path / name) for name in ("a", "b"))
    assert accounting(first) == accounting(second)
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_another_seed_gives_other_weights(heat_study, tmp_path: Path) -> None:
    for seed in (1, 2):
        run(heat_study(study={"seed": seed}), tmp_path / str(seed))
    a, b = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_windows_are_trained_on_too(heat_study, tmp_path: Path) -> None:
    study = heat_study(samples={"window": 4, "stride": 2}, model={"name": "stepper:Stepper"})
    report = run(study, tmp_path / "run")
    assert report["samples"]["expected"] == report["samples"]["unique"] == report["samples"]["trained_unique"] == 6 * 6


def test_max_batches_ends_a_study_before_its_production_does(heat_study, tmp_path: Path) -> None:
    report = run(heat_study(training={"max_batches": 7}), tmp_path / "run")
    assert (report["status"], report["message"]) == ("finished", "max_batches reached")
    assert report["training"]["batches"] == 7


def test_min_batches_goes_on_after_production_and_still_drains(heat_study, tmp_path: Path) -> None:
    report = run(heat_study(training={"min_batches": 400}), tmp_path / "run")
    assert report["training"]["batches"] >= 400
    assert report["samples"]["trained_unique"] == 6 * 15


def test_a_target_error_ends_a_study(heat_study, tmp_path: Path) -> None:
    report = run(heat_study(training={"target_error": 10.0}), tmp_path / "run")
    assert report["message"] == "target error reached"


def test_stopping_leaves_a_checkpoint_and_a_report_and_resuming_finishes(heat_study, tmp_path: Path) -> None:
    study = heat_study(solver={"simulations": 40}, training={"min_batches": 10**9})
    directory = tmp_path / "run"
    directory.mkdir()
    engine = InlineEngine(study, directory, threads=1, solver=Heat2D(**study.solver.options))
    engine.start()
    assert not engine.wait(3)
    engine.stop("interrupted")
    assert engine.wait(PATIENCE)
    report = engine.close()
    assert (report["status"], report["message"]) == ("stopped", "interrupted")
    study = heat_study(solver={"simulations": 40})
    restore = load_latest(directory / "checkpoints")
    engine = InlineEngine(study, directory, threads=1, solver=Heat2D(**study.solver.options), restore=restore)
    engine.start()
    assert engine.wait(PATIENCE)
    report = engine.close()
    assert report["status"] == "finished"
    assert report["incarnations"] == 2
    assert report["samples"]["unique"] == report["samples"]["expected"] == 40 * 15
    assert report["samples"]["trained_unique"] == 40 * 15


def test_a_solver_that_fails_costs_its_simulations_and_nothing_else(heat_study, tmp_path: Path) -> None:
    class Fragile(Heat2D):
        def run(self, parameters):
            for step, values in enumerate(super().run(parameters)):
                if parameters["initial"] > 300 and step == 5:
                    raise FloatingPointError("the plate has melted")
                yield values

    report = run(heat_study(), tmp_path / "run", Fragile)
    assert report["status"] == "finished"
    assert 0 < report["simulations"]["failed"] < 8
    assert set(report["failures"].values()) == {"FloatingPointError: the plate has melted"}
    assert report["samples"]["unique"] == report["samples"]["expected"] == report["samples"]["trained_unique"]


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_diverged_simulation_is_refused_with_a_reason(heat_study, tmp_path: Path) -> None:
    class Diverging(Heat2D):
        def run(self, parameters):
            for step, (time, fields) in enumerate(super().run(parameters)):
                yield time, {"T": fields["T"] * (float("nan") if step == 3 and parameters["left"] > 300 else 1.0)}

    report = run(heat_study(solver={"retries": 0}), tmp_path / "run", Diverging)
    assert report["status"] == "finished"
    assert report["samples"]["rejected_by_reason"].keys() == {"not_finite"}
    assert report["samples"]["rejected"] == report["simulations"]["failed"] > 0
    assert all("the solver has diverged" in text for text in report["failures"].values())


def test_a_study_without_a_single_good_simulation_has_failed(heat_study, tmp_path: Path) -> None:
    class Broken(Heat2D):
        def run(self, parameters):
            raise RuntimeError("no licence")

    report = run(heat_study(), tmp_path / "run", Broken)
    assert report["status"] == "failed"
