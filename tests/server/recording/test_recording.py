"""Recordings: what is written is read back bit for bit, whole or not at all, and holds what a study needs or says what it lacks."""

from __future__ import annotations

import pickle
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.recording import Recording, RecordingReader, check_recording
from penstock_server.recording import recording as module
from penstock_server.recording.recording import RecordingError
from penstock_server.study import Study
from recordings import inputs, recorded, value, writer

arrivals = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 11)), max_size=60)


@settings(max_examples=40, deadline=None)
@given(arrivals, st.sampled_from([(2,), (4096,)]), st.sampled_from([2**15, 2**26]))
def test_time_steps_in_any_order_and_twice_are_there_once(
    order: list[tuple[int, int]], shape: tuple[int, ...], pending: int
) -> None:
    # 4,096 points: four time steps to a chunk. 2**15 bytes may wait: two such time steps.
    before, module._PENDING_BYTES = module._PENDING_BYTES, pending
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data.h5"
            out = writer(path, 4, 1, shape=shape)
            arrived: set[tuple[int, int]] = set()
            for simulation, step in order:
                new = out.add(simulation, step, inputs(simulation, step), value(simulation, step, shape[0]))
                assert new == ((simulation, step) not in arrived)
                arrived.add((simulation, step))
            behind = {i: next(k for k in range(13) if (i, k) not in arrived) for i in range(4)}
            assert out.gaps() == {i: k for i, k in behind.items() if any(a == i and b > k for a, b in arrived)}
            out.finish(np.ones(4, bool))
            there = Recording.open(path)
            reader = RecordingReader(there, "physical")
            for simulation in range(4):
                whole = next(k for k in range(13) if (simulation, k) not in arrived)
                assert there.steps[simulation] == whole
                rows, values = reader.read(simulation, 0, whole)
                assert np.array_equal(rows, np.array([inputs(simulation, k) for k in range(whole)]).reshape(whole, 6))
                expected = np.array([value(simulation, k, shape[0]) for k in range(whole)])
                assert np.array_equal(values, expected.reshape(whole, shape[0]))
            assert out.time_steps == there.steps.sum()
            reader.close()
    finally:
        module._PENDING_BYTES = before


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    out = writer(path, 1, 0)
    out.add(0, 0, inputs(0, 0), value(0, 0, 6))
    assert not path.exists()
    out.discard()
    assert list(tmp_path.iterdir()) == []
    recorded(path, [1])
    assert list(tmp_path.iterdir()) == [path]


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    there = recorded(tmp_path / "data.h5", [4, 5, 2, 6, 7], held_out=2, failed=[2])
    assert (there.study, there.seed, there.parameters[0], there.fields[0].shape) == ("heat", 3, "initial", (3, 2))
    assert there.training().tolist() == [0, 1, 2]
    assert there.training(2).tolist() == [0, 1]
    assert there.validation(1).tolist() == [3]
    assert there.finished.tolist() == [True, True, False, True, True]
    assert (there.longest(), there.bytes_per_step) == (7, 24)
    with h5py.File(there.path) as file:
        assert file["values"].shape == (5, 7, 6)
        assert np.isnan(file["time"][0, 4:]).all()


@pytest.mark.parametrize(("width", "steps", "rows"), [(3, 100, 100), (16384, 5, 1), (20000, 5, 1), (1024, 40, 16)])
def test_a_chunk_is_about_64_kib_and_no_longer_than_a_simulation(
    width: int, steps: int, rows: int, tmp_path: Path
) -> None:
    there = recorded(tmp_path / "data.h5", [steps] * 10, shape=(width,))
    with h5py.File(there.path) as file:
        assert file["values"].chunks == (1, rows, width)
        assert file["values"].compression is None
    assert there.path.stat().st_size < 1.5 * 4 * width * steps * 10 + 64 * 1024


def test_mesh_and_pickles(tmp_path: Path) -> None:
    out = writer(tmp_path / "data.h5", 1, 0)
    out.add(0, 0, inputs(0, 0), value(0, 0, 6))
    out.add_static("cell_volumes", np.arange(6.0)[:, None])
    out.finish(np.ones(1, bool))
    reader = RecordingReader(Recording.open(tmp_path / "data.h5"), "step")
    assert reader.static_fields()["cell_volumes"].tolist() == [[0], [1], [2], [3], [4], [5]]
    reader.read(0, 0, 1)
    again = pickle.loads(pickle.dumps(reader))  # as it goes to a loader's process
    assert np.array_equal(again.read(0, 0, 1)[1], reader.read(0, 0, 1)[1])
    reader.close()
    again.close()


def test_what_is_no_recording(tmp_path: Path) -> None:
    def opened(content: bytes) -> None:
        (tmp_path / "x.h5").write_bytes(content)
        Recording.open(tmp_path / "x.h5")

    with pytest.raises(RecordingError, match=r"no such file.*penstock record"):
        Recording.open(tmp_path / "nothing.h5")
    with pytest.raises(RecordingError, match="is no recording"):
        opened(b"a, b\n1, 2\n")
    whole = recorded(tmp_path / "data.h5", [3, 3]).path.read_bytes()
    with pytest.raises(RecordingError, match="is no recording"):
        opened(whole[: len(whole) // 2])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["values"] = [1.0]
    with pytest.raises(RecordingError, match="is no recording"):
        Recording.open(tmp_path / "other.h5")
    with h5py.File(tmp_path / "data.h5", "a") as file:
        file.attrs["format"] = 9
    with pytest.raises(RecordingError, match="has format 9, expected 1"):
        Recording.open(tmp_path / "data.h5")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, []),
        ({"parameters": {"top": None}}, [r"\[training\] source.*has the parameters .*, top, the study's model sees"]),
        ({"fields": {"U": {}}}, [r"\[training\] source.*has the fields T, the study T, U"]),
        ({"fields": {"T": {"components": 3}}}, [r"\[fields\] T.components = 3: .* has 1"]),
        ({"fields": {"T": {"shape": [12, 12]}}}, [r"\[fields\] T.shape = \[12, 12\]: .* has \[3, 2\]"]),
        ({"fields": {"T": {"reference": 273.15}}}, [r"\[fields\] T.reference = 273.1\d*: .* recorded with 0; write"]),
        ({"samples": {"time": "physical"}}, [r"\[samples\] time = \"physical\": .* recorded without"]),
        ({"solver": {"simulations": 4}}, [r"\[solver\] simulations = 4: .* has 3 to train on"]),
        ({"solver": {"validation_simulations": 3}}, [r"\[solver\] validation_simulations = 3: .* has 2 held out"]),
        ({"samples": {"window": 5}}, [r"\[samples\] window = 5.* expected 5 time steps or more, simulation 0 has 4"]),
        ({"samples": {"window": 5}, "solver": {"simulations": 1}}, ["simulation 0 has 4"]),
        ({"samples": {"window": 4, "bundle": 2}, "solver": {"validation_simulations": 2}}, ["simulation 4 has 3"]),
        ({"samples": {"window": 4, "bundle": 2}, "solver": {"validation_simulations": 1}}, []),
        (
            {"parameters": {"top": None}, "solver": {"simulations": 9, "validation_simulations": 9}},
            ["parameters", "simulations = 9", "validation_simulations = 9"],
        ),
    ],
)
def test_what_keeps_a_study_from_it(
    changes: dict[str, Any], says: list[str], heat_study: Callable[..., Study], tmp_path: Path
) -> None:
    there = recorded(tmp_path / "data.h5", [4, 5, 2, 6, 3], held_out=2, failed=[2])
    base: dict[str, Any] = {"solver": {"simulations": 3, "validation_simulations": 2}}
    study = heat_study(**{**base, **changes, "solver": {**base["solver"], **changes.get("solver", {})}})
    problems = check_recording(there, study)
    assert len(problems) == len(says)
    for problem, pattern in zip(problems, says, strict=True):
        assert re.search(pattern, problem)


def test_simulations_that_failed_at_once_are_told_from_short_ones(
    heat_study: Callable[..., Study], tmp_path: Path
) -> None:
    there = recorded(tmp_path / "data.h5", [0, 1, 5], held_out=1, failed=[0, 1])
    study = heat_study(solver={"simulations": 2, "validation_simulations": 1}, samples={"window": 2})
    assert "the longest simulation has 1 (all have failed)" in check_recording(there, study)[0]
