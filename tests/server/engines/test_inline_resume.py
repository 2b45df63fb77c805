"""A study with engine "inline" that was stopped, or killed, and resumed ends as one that never stopped, to the last bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_client import Field
from penstock_server.checkpoint import load_latest
from penstock_server.engines.inline import InlineEngine
from penstock_server.study import Study
from penstock_server.trainer_rank import TrainingLoop
from penstock_solvers.problems.heat2d import Heat2D
from resumed import accounting, assert_same, parts, with_training
from waiting import PATIENCE

Make = Callable[..., Study]
LENGTH = 15  # time steps of a simulation


class Plate:
    """Heat2D, with the flow of heat as a second field; one plate in four melts at its ninth time step, and is NaN in both.

    at_step: called before each time step of any simulation, with their number so far.
    """

    def __init__(self, at_step: Callable[[int], None] = lambda _n: None) -> None:
        self._heat, self._at_step, self._steps = Heat2D(points=12, steps=LENGTH), at_step, 0
        temperature = self._heat.fields["T"]
        self.fields = {"T": temperature, "q": Field(temperature.shape, dtype="float32")}

    def run(self, parameters: dict[str, float]) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
        melts = parameters["initial"] > 400
        for step, (time, values) in enumerate(self._heat.run(parameters)):
            self._at_step(self._steps)
            self._steps += 1
            temperature = values["T"]
            flow = np.gradient(temperature)[0].astype(np.float32)
            if melts and step == 8:
                flow[:] = np.nan
            yield time, {"T": temperature, "q": flow}


STUDIES: dict[str, dict[str, Any]] = {
    "reservoir": {},
    "fifo": {"buffer": {"policy": "fifo"}},
    "firo": {"buffer": {"policy": "firo", "presentations_per_sample": 0.7}},
    "windows": {"samples": {"window": 4, "stride": 2}, "training": {"validate_every": 7}},
    "bundles and pushforward": {
        "samples": {"window": 6, "bundle": 2, "time": "physical"},
        "training": {
            "pushforward": 1,
            "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.9},
            "scheduler": {"name": "OneCycleLR", "max_lr": 1e-2, "total_steps": 40},
        },
    },
    "min_batches": {"training": {"min_batches": 130}},
    "redrawn": {"solver": {"retries": 0, "on_failure": "redraw"}},
    "no retries": {"solver": {"retries": 0, "concurrency": 3, "every": 2}},
}


def make(heat_study: Make, name: str, **changes: Any) -> Study:
    model = {"model": {"name": "stepper:Stepper"}} if "samples" in STUDIES[name] else {}
    base = {"fields": {"T": {}, "q": {}}, "solver": {"retries": 1, "retry_final": True}, "training": {"threads": 1}}
    tables: dict[str, Any] = {}
    for layer in (base, model, STUDIES[name], changes):
        for table, values in layer.items():
            tables[table] = {**tables.get(table, {}), **values}
    return heat_study(**tables)


def run(study: Study, directory: Path, stop_at: int | None = None) -> dict[str, Any]:
    """Run or resume; stop_at: the engine is stopped before its so-manieth time step, those of a replay among them."""

    def at_step(number: int) -> None:
        if number == stop_at:
            engine.stop("told to")

    restore = None
    if (directory / "checkpoints").exists():
        restore = load_latest(directory / "checkpoints")
    directory.mkdir(exist_ok=True)
    engine = InlineEngine(study, directory, threads=1, solver=Plate(at_step), restore=restore)
    engine.start()
    assert engine.wait(PATIENCE)
    return engine.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Study, str], tuple[Path, dict[str, Any]]]:
    """The run directory and report of a study that was never stopped, run once."""
    done: dict[str, tuple[Path, dict[str, Any]]] = {}

    def get(study: Study, name: str) -> tuple[Path, dict[str, Any]]:
        if name not in done:
            directory = tmp_path_factory.mktemp("undisturbed") / "run"
            done[name] = directory, run(study, directory)
            assert done[name][1]["status"] == "finished", done[name][1]["message"]
            assert done[name][1]["failures"]
            assert done[name][1]["simulations"]["redrawn"] == (name == "redrawn")
        return done[name]

    return get


@pytest.mark.parametrize("name", STUDIES)
def test_stopped_after_batches_and_resumed(name: str, heat_study: Make, undisturbed: Any, tmp_path: Path) -> None:
    """Among them the batch of a validation, and one of the drain at the end."""
    study = make(heat_study, name)
    reference, report = undisturbed(study, name)
    batches = report["training"]["batches"]
    for stop in sorted({1, 7, batches // 2, batches - 2}):
        assert run(with_training(study, max_batches=stop), tmp_path / "run")["training"]["batches"] == stop
    resumed = run(study, tmp_path / "run")
    assert_same(tmp_path / "run", reference)
    assert accounting(resumed) == accounting(report)


@pytest.mark.parametrize("name", STUDIES)
def test_stopped_between_time_steps_and_resumed(name: str, heat_study: Make, undisturbed: Any, tmp_path: Path) -> None:
    """Before the watermark is reached, while a replay is under way, and later."""
    study = make(heat_study, name)
    reference, report = undisturbed(study, name)
    for stop in (4, 40, 3, 30):
        assert run(study, tmp_path / "run", stop_at=stop)["status"] == "stopped"
    resumed = run(study, tmp_path / "run")
    assert_same(tmp_path / "run", reference)
    assert accounting(resumed) == accounting(report)


def test_stopped_while_second_attempts_are_replayed(heat_study: Make, undisturbed: Any, tmp_path: Path) -> None:
    study = make(heat_study, "reservoir")
    reference, report = undisturbed(study, "reservoir")
    run(study, tmp_path / "run", stop_at=115)
    under_way = parts(tmp_path / "run")["coordinator"]["production"]["places"]
    assert [place["attempt"] for place in under_way] == [2, 2]
    assert run(study, tmp_path / "run", stop_at=1)["status"] == "stopped"
    assert parts(tmp_path / "run")["coordinator"]["production"]["places"] == under_way
    resumed = run(study, tmp_path / "run")
    assert_same(tmp_path / "run", reference)
    assert accounting(resumed) == accounting(report)


@pytest.mark.parametrize("name", STUDIES)
def test_killed_and_resumed_from_a_periodic_checkpoint(
    name: str, heat_study: Make, undisturbed: Any, tmp_path: Path
) -> None:
    """What a kill leaves: the checkpoint of some batch, made while a sample waited for room, and nothing of its own."""
    study = make(heat_study, name)
    reference, report = undisturbed(study, name)
    for stop in (12, report["training"]["batches"] // 2):
        run(with_training(study, max_batches=stop, checkpoint_every=1e-6), tmp_path / "run")
        last = load_latest(tmp_path / "run" / "checkpoints")
        shutil.rmtree(last.path)
    resumed = run(study, tmp_path / "run")
    assert_same(tmp_path / "run", reference)
    assert accounting(resumed) == accounting(report)


@pytest.mark.parametrize("ahead", [3, -3])
def test_a_count_that_was_read_later_or_earlier_than_the_ledger_is_put_right(
    heat_study: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """Where clients stream, samples go on coming while a checkpoint's parts are read one after the other."""
    study, whole = make(heat_study, "reservoir"), TrainingLoop.state

    def torn(loop: TrainingLoop) -> dict[str, Any]:
        state = whole(loop)
        state["counts"]["received"] += ahead
        return state

    monkeypatch.setattr(TrainingLoop, "state", torn)
    assert run(study, tmp_path / "run", stop_at=50)["status"] == "stopped"
    samples = run(study, tmp_path / "run")["samples"]
    assert samples["received"] - samples["duplicates_dropped"] == samples["unique"] == samples["expected"]
