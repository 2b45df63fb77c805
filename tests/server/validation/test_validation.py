import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from penstock_server.checkpoint import load_latest, write_checkpoint
from penstock_server.study import FieldSpec, ModelSection, SampleSpec, TrainingSection
from penstock_server.training import Normaliser, Trainer
from penstock_server.validation import (
    ValidationStore,
    evaluate,
    read_snapshots,
    steps_for_pictures,
    take_snapshots,
    write_snapshots,
)
from penstock_server.validation.norms import NORM_FLOOR

FIELDS = (FieldSpec("U", 3, (4,)), FieldSpec("p", 1, (2, 3)))
SPEC = SampleSpec(("a",), FIELDS)
WINDOWS = SampleSpec(("a",), FIELDS, window=2)


class Stretch(nn.Module):
    """Not a surrogate that learns: it answers with a tenth more than a table says, or than the state."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, inputs: torch.Tensor, state: torch.Tensor | None = None) -> torch.Tensor:
        return 1.1 * (self.table[inputs[:, 1].long()] if state is None else state)


def rows(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, SPEC.width, generator=torch.Generator().manual_seed(seed))


def stretched(spec: SampleSpec, table: torch.Tensor) -> Trainer:
    """A trainer whose model is known, on raw values."""
    normaliser = Normaliser(spec, inputs=False, targets=False)
    trainer = Trainer(spec, ModelSection(), TrainingSection(), normaliser, device="cpu")
    trainer.model = Stretch(table)
    return trainer


def filled(spec: SampleSpec, table: torch.Tensor, simulation: int = 5) -> ValidationStore:
    store = ValidationStore(spec)
    for step in reversed(range(len(table))):  # arrival need not be in order
        assert store.add(simulation, step, np.array([1.5, step], np.float32), table[step].numpy())
    return store


def test_errors_are_those_of_their_definitions() -> None:
    table = rows(9)
    table[4] *= 3
    result = evaluate(filled(SPEC, table), stretched(SPEC, table))
    assert result.mse == pytest.approx(float((0.1 * table).pow(2).mean()), rel=1e-5)
    assert result.relative_l2 == pytest.approx(0.1, rel=1e-5)
    assert result.errors.relative_l2_p99 == pytest.approx(0.1, rel=1e-5)
    assert result.errors.relative_l2_max == pytest.approx(0.1, rel=1e-5)
    assert result.errors.fields["p"]["mse"] == pytest.approx(float((0.1 * table[:, 12:]).pow(2).mean()), rel=1e-5)
    assert result.errors.fields["U"]["relative_l2"] == pytest.approx(0.1, rel=1e-5)
    assert (result.errors.samples, result.errors.floored) == (9, 0)
    assert result.seconds > 0


def test_each_held_out_simulation_has_an_error_of_its_own() -> None:
    table = rows(8)
    store = filled(SPEC, table)
    for step in range(4):
        store.add(9, step, np.array([2.5, step], np.float32), 2 * table[step].numpy())
    result = evaluate(store, stretched(SPEC, table))
    # the model gives 1.1 x the table: 10 % too much of the one, 45 % too little of the other
    assert result.by_simulation == {5: pytest.approx(0.1, rel=1e-5), 9: pytest.approx(0.45, rel=1e-5)}
    assert result.relative_l2 == pytest.approx((8 * 0.1 + 4 * 0.45) / 12, rel=1e-5)


def test_the_error_is_also_told_relative_to_the_variation_of_the_truth() -> None:
    table = rows(9)
    table[:, 12:] += 1000.0  # p: a large mean, of which the model predicts a tenth too much
    table[:, 2:12:3] = 7.0  # U's third component is constant
    result = evaluate(filled(SPEC, table), stretched(SPEC, table))
    true = table.double().numpy()
    for name, columns, components in (("U", slice(0, 12), 3), ("p", slice(12, 18), 1)):
        values = true[:, columns].reshape(-1, components)
        std = np.sqrt(np.square(values - values.mean(axis=0)).mean())
        rmse = np.sqrt(np.square(0.1 * values).mean())
        assert result.errors.fields[name]["rmse_to_std"] == pytest.approx(rmse / std, rel=1e-5)
    assert result.errors.fields["p"]["relative_l2"] == pytest.approx(0.1, rel=1e-4)
    assert result.errors.fields["p"]["rmse_to_std"] > 50
    assert result.errors.rmse_to_std == pytest.approx(
        sum(f["rmse_to_std"] for f in result.errors.fields.values()) / 2, rel=1e-6
    )


def test_a_constant_field_has_no_error_relative_to_its_variation() -> None:
    table = rows(9)
    table[:, 12:] = 0.1
    result = evaluate(filled(SPEC, table), stretched(SPEC, table))
    assert result.errors.fields["p"]["rmse_to_std"] is None
    assert result.errors.rmse_to_std == result.errors.fields["U"]["rmse_to_std"]


def test_mean_tail_and_maximum_differ_where_one_sample_is_bad() -> None:
    table = rows(200)
    store = filled(SPEC, table)
    wrong = table.clone()
    wrong[17] *= 2 / 1.1  # predicted as 2 x true
    result = evaluate(store, stretched(SPEC, wrong))
    assert result.errors.relative_l2_max == pytest.approx(1.0, rel=1e-5)
    assert result.errors.relative_l2_p99 == pytest.approx(0.1, rel=1e-4)
    assert result.relative_l2 == pytest.approx((199 * 0.1 + 1.0) / 200, rel=1e-5)


def test_a_field_of_zeros_does_not_decide_the_mean_and_is_counted() -> None:
    table = rows(10)
    true = table.clone()
    true[0, :12] = 0  # a fluid at rest
    result = evaluate(filled(SPEC, true), stretched(SPEC, table * 1e-4 / 1.1 + true / 1.1))
    assert result.errors.floored == 1
    rms = float(torch.linalg.vector_norm(true[:, :12], dim=1).pow(2).mean().sqrt())
    want = float(torch.linalg.vector_norm(1e-4 * table[0, :12])) / (NORM_FLOOR * rms)
    assert result.errors.fields["U"]["relative_l2_max"] == pytest.approx(want, rel=1e-3)


def test_a_field_that_is_zero_everywhere_has_a_finite_error() -> None:
    true = rows(5)
    true[:, 12:] = 0
    result = evaluate(filled(SPEC, true), stretched(SPEC, true))
    assert result.errors.fields["p"]["relative_l2"] == 0
    assert np.isfinite(result.relative_l2)


def test_windows_predict_each_step_from_the_true_one_before() -> None:
    table = rows(6)
    store = filled(WINDOWS, table)
    store.add(8, 3, np.array([1.0, 3.0], np.float32), table[0].numpy())  # its predecessor has not come
    result = evaluate(store, stretched(WINDOWS, table))
    assert result.errors.samples == 5
    want = float((1.1 * table[:-1] - table[1:]).pow(2).mean())
    assert result.mse == pytest.approx(want, rel=1e-5)


def test_blocks_and_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows(50)
    whole = evaluate(filled(SPEC, table), stretched(SPEC, rows(50, 1)))
    monkeypatch.setattr("penstock_server.validation.store._BLOCK_BYTES", 4 * 20 * 7)
    monkeypatch.setattr("penstock_server.training.trainer._CHUNK_BYTES", 4 * 18 * 8)
    parts = evaluate(filled(SPEC, table), stretched(SPEC, rows(50, 1)))
    assert parts.relative_l2 == whole.relative_l2
    assert parts.mse == pytest.approx(whole.mse, rel=1e-12)


def test_a_time_step_is_held_once_and_found_by_simulation() -> None:
    store = filled(SPEC, rows(3))
    assert not store.add(5, 1, np.zeros(2, np.float32), np.zeros(SPEC.width, np.float32))
    assert store.add(2, 7, np.zeros(2, np.float32), np.zeros(SPEC.width, np.float32))
    assert len(store) == 4
    assert store.simulations() == {2: [7], 5: [0, 1, 2]}
    assert torch.equal(store.time_step(5, 1)[1], rows(3)[1])


def test_no_validation_without_samples() -> None:
    with pytest.raises(ValueError, match="without a time step of a held-out simulation: 0 held"):
        evaluate(ValidationStore(SPEC), stretched(SPEC, rows(1)))
    with pytest.raises(ValueError, match="without 2 consecutive time steps of a held-out simulation: 1 held"):
        evaluate(filled(WINDOWS, rows(1)), stretched(WINDOWS, rows(1)))


def test_adding_while_evaluating() -> None:
    table = rows(600)
    store, trainer = ValidationStore(SPEC), stretched(SPEC, table)
    store.add(5, 0, np.array([1.5, 0], np.float32), table[0].numpy())

    def add() -> None:
        for step in range(1, 600):
            store.add(5, step, np.array([1.5, step], np.float32), table[step].numpy())

    thread = threading.Thread(target=add)
    thread.start()
    counts = []
    while thread.is_alive():
        result = evaluate(store, trainer)
        counts.append(result.errors.samples)
        assert result.errors.relative_l2_max == pytest.approx(0.1, rel=1e-4)
    thread.join()
    assert counts == sorted(counts)
    assert evaluate(store, trainer).errors.samples == 600


def test_the_store_survives_a_checkpoint(tmp_path: Path) -> None:
    table = rows(20)
    store, trainer = filled(SPEC, table), stretched(SPEC, rows(20, 1))
    write_checkpoint(tmp_path, 1, {"validation": store.state_dict()})
    other = ValidationStore(SPEC)
    other.load_state_dict(load_latest(tmp_path).parts["validation"])
    assert other.simulations() == store.simulations()
    assert evaluate(other, trainer).errors == evaluate(store, trainer).errors
    assert other.add(5, 20, np.zeros(2, np.float32), np.zeros(SPEC.width, np.float32))
    with pytest.raises(ValueError, match=r"held-out block of shape"):
        ValidationStore(SampleSpec(("a",), FIELDS[:1])).load_state_dict(store.state_dict())


def test_snapshots_are_a_few_time_steps_of_a_few_simulations(tmp_path: Path) -> None:
    table = rows(9)
    store = filled(SPEC, table)
    for simulation in (6, 7):
        for step in range(9):
            store.add(simulation, step, np.array([2.5, step], np.float32), table[step].numpy())
    taken = take_snapshots(store, stretched(SPEC, table), errors={5: 0.1, 6: 0.2, 7: 0.3})
    assert [(s.simulation, s.step) for s in taken.items] == [(5, 2), (5, 5), (5, 8), (6, 2), (6, 5), (6, 8)]
    write_snapshots(tmp_path / "validation_snapshots.h5", taken)
    assert [p.name for p in tmp_path.iterdir()] == ["validation_snapshots.h5"]
    read = read_snapshots(tmp_path / "validation_snapshots.h5")
    assert (read.batches, read.errors) == (0, {5: 0.1, 6: 0.2, 7: 0.3})
    item = read.items[4]
    assert (item.simulation, item.step, item.inputs) == (6, 5, {"a": 2.5, "time": 5.0})
    assert item.true["U"].shape == (4, 3)
    assert item.true["p"].shape == (2, 3, 1)
    np.testing.assert_allclose(item.prediction["p"], 1.1 * item.true["p"], rtol=1e-6)
    np.testing.assert_array_equal(item.true["U"].reshape(-1), table[5, :12].numpy())
    assert [s.step for s in take_snapshots(filled(SPEC, table[:1]), stretched(SPEC, table)).items] == [0]
    assert take_snapshots(ValidationStore(SPEC), stretched(SPEC, table)).items == []
    with h5py.File(tmp_path / "validation_snapshots.h5", "r+") as file:
        assert list(file.attrs["parameters"]) == ["a", "time"]
        del file["held_out"]  # as older versions wrote it
    assert read_snapshots(tmp_path / "validation_snapshots.h5").errors == {}


@pytest.mark.parametrize(("width", "steps"), [(1, 24), (2**18, 4), (2**24, 3)])
def test_the_file_of_pictures_has_a_bounded_size(width: int, steps: int) -> None:
    assert steps_for_pictures(width) == steps
