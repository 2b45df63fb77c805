"""The page's view of a run directory, from an empty folder to a study that was resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from penstock.live.run_reader import RunReader
from penstock.run import hold
from penstock.study import write_resolved
from penstock_server.coordinator import make_plan
from penstock_server.study import Study
from penstock_server.telemetry.snapshots import FILE, Snapshot, Snapshots, write_snapshots


class Directory:
    """A run directory that grows, and a reader that looks at it at once, without the pauses between its looks."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for pause in ("READ_SECONDS", "PHASE_SECONDS"):
            monkeypatch.setattr(f"penstock.live.run_reader.{pause}", 0.0)
        self.path, self._reader = path, RunReader(path)

    def add(self, name: str, *lines: dict[str, object]) -> None:
        with (self.path / name).open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    @property
    def seen(self) -> RunReader:
        self._reader.refresh()
        return self._reader


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Directory:
    return Directory(tmp_path, monkeypatch)


def train(batches: int) -> dict[str, object]:
    return {"kind": "train", "batches": batches, "time": 0.1 * batches, "loss": 0.5, "received": batches}


def snapshots(batches: int, error: float) -> Snapshots:
    values = np.ones((4, 4, 1), np.float32)
    item = Snapshot(6, 3, {"initial": 200.0, "time": 3.0}, {"T": values}, {"T": (1 + error) * values})
    return Snapshots(batches, [item], {6: error})


def test_an_empty_folder_becomes_a_study(directory: Directory, heat_study: Callable[..., Study]) -> None:
    seen = directory.seen
    assert (seen.study, seen.points, seen.pictures, seen.problem) == (None, None, None, "")
    write_resolved(heat_study(), directory.path / "study.toml")
    seen = directory.seen
    assert seen.study is not None
    assert seen.points is not None
    assert seen.points.names == ("initial", "left", "right", "bottom", "top")
    assert seen.points.held_out.tolist() == 6 * [False] + 2 * [True]
    # the points are those that the coordinator hands out
    np.testing.assert_array_equal(seen.points.values, [point.parameters for point in make_plan(heat_study())])
    assert "it was killed" in seen.phase


def test_states_follow_the_events_and_the_life_of_the_study(
    directory: Directory, heat_study: Callable[..., Study]
) -> None:
    write_resolved(heat_study(solver={"on_failure": "redraw"}), directory.path / "study.toml")
    directory.add(
        "events.jsonl",
        {"event": "started", "incarnation": 1},
        {"event": "assigned", "simulation": 6, "attempt": 1},
        {"event": "assigned", "simulation": 0, "attempt": 1},
        {"event": "finished", "simulation": 6, "attempt": 1},
        {"event": "failed", "simulation": 0, "attempt": 1, "again": False},
        {"event": "assigned", "simulation": 8, "attempt": 1},
    )
    with hold(directory.path):
        seen = directory.seen
        assert seen.states() == {6: "finished", 0: "failed", 8: "running"}
        assert seen.phase.startswith("running")
        assert seen.points is not None
        assert (len(seen.points.values), seen.points.planned) == (9, 8)
    changes = seen.changes["states"]
    seen = directory.seen  # nobody runs it any more
    assert seen.states() == {6: "finished", 0: "failed", 8: "waiting"}
    assert seen.changes["states"] > changes


def test_metrics_that_begin_again_and_pictures_that_are_replaced(
    directory: Directory, heat_study: Callable[..., Study]
) -> None:
    write_resolved(heat_study(), directory.path / "study.toml")
    directory.add("metrics.jsonl", train(1), train(2))
    write_snapshots(directory.path / FILE, snapshots(2, 0.5))
    seen = directory.seen
    assert seen.training.columns["batches"] == [1, 2]
    assert seen.pictures is not None
    assert (seen.pictures.batches, seen.pictures.errors) == (2, {6: 0.5})
    changes = seen.changes["pictures"]
    assert directory.seen.changes["pictures"] == changes  # the same file is read once
    (directory.path / "metrics.jsonl").unlink()
    directory.add("metrics.jsonl", train(1))
    write_snapshots(directory.path / FILE, snapshots(9, 0.25))
    assert len(directory.seen.training) == 0
    seen = directory.seen
    assert seen.training.columns["batches"] == [1]
    assert seen.pictures is not None
    assert (seen.pictures.batches, seen.changes["pictures"]) == (9, changes + 1)


def test_damaged_files_are_told_and_read_again_when_they_are_whole(
    directory: Directory, heat_study: Callable[..., Study]
) -> None:
    (directory.path / "study.toml").write_text("[study\n")
    assert "not valid TOML" in directory.seen.problem
    write_resolved(heat_study(), directory.path / "study.toml")
    (directory.path / FILE).write_bytes(b"no HDF5")
    (directory.path / "report.json").write_text("{}")
    directory.add("metrics.jsonl", train(1))
    seen = directory.seen
    assert "holds no report" in seen.problem
    assert len(seen.training) == 1  # what can be read is shown
    (directory.path / "report.json").unlink()
    write_snapshots(directory.path / FILE, snapshots(1, 0.1))
    seen = directory.seen
    assert seen.problem == ""
    assert seen.pictures is not None


def test_points_that_cannot_be_worked_out_are_explained(directory: Directory, heat_study: Callable[..., Study]) -> None:
    study = heat_study(parameters={"sampler": "file", "file": str(directory.path / "gone.csv")})
    write_resolved(study, directory.path / "study.toml")
    seen = directory.seen
    assert seen.points is not None
    assert "gone.csv' cannot be read" in seen.points.problem
