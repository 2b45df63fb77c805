import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.study import FieldSpec, SampleSpec
from penstock_server.training import Normaliser
from penstock_server.training.welford import Welford

SPEC = SampleSpec(("a", "b"), (FieldSpec("U", 3, (5,)), FieldSpec("T", 1, (2, 3))))


def rows(n: int, seed: int = 0, window: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(3.0, 2.0, (n, window, SPEC.n_inputs)).astype(np.float32)
    targets = rng.normal(0.0, 1.0, (n, window, SPEC.width)).astype(np.float32)
    return inputs, targets


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.floats(-1e4, 1e4), st.integers(0, 9))
def test_welford_equals_numpy_however_the_rows_are_dealt(sizes: list[int], offset: float, seed: int) -> None:
    data = np.random.default_rng(seed).normal(offset, 0.1, (sum(sizes), 3))
    streamed, at = Welford.empty(3), 0
    for size in sizes:
        streamed.update(data[at : at + size])
        at += size
    assert streamed.count == len(data)
    if len(data):
        np.testing.assert_allclose(streamed.mean, data.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(streamed.std, data.std(axis=0), rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(streamed.low, data.min(axis=0))
        np.testing.assert_array_equal(streamed.high, data.max(axis=0))


def test_welford_merges_blocks_larger_than_one() -> None:
    data = np.random.default_rng(0).normal(1e3, 1.0, (70_000, 2)).astype(np.float32)
    welford = Welford.empty(2)
    welford.update(data)
    np.testing.assert_allclose(welford.std, data.astype(np.float64).std(axis=0), rtol=1e-9)


def test_targets_have_statistics_per_component_over_points_and_samples() -> None:
    normaliser = Normaliser(SPEC)
    inputs, targets = rows(7, window=1)
    for i in range(7):
        normaliser.update(inputs[i : i + 1], targets[i : i + 1])
    affine = normaliser.affine()
    vector = targets[:, 0, :15].reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(affine.target_mean[:15].numpy(), np.tile(vector.mean(axis=0), 5), rtol=1e-5)
    np.testing.assert_allclose(affine.target_std[:15].numpy(), np.tile(vector.std(axis=0), 5), rtol=1e-5)
    np.testing.assert_allclose(affine.target_std[15:].numpy(), targets[:, 0, 15:].std(), rtol=1e-5)
    np.testing.assert_allclose(affine.input_mean.numpy(), inputs[:, 0].mean(axis=0), rtol=1e-5)
    back = affine.raw_targets(affine.targets(torch.from_numpy(targets)))
    np.testing.assert_allclose(back.numpy(), targets, atol=1e-5)
    assert affine.target_std.dtype == torch.float32


def test_constant_components_are_predicted_whatever_the_model_gives() -> None:
    normaliser = Normaliser(SPEC)
    inputs, targets = rows(20)
    inputs[..., 1] = 4.0
    vector = targets[..., :15].reshape(20, 1, 5, 3)
    vector[..., 2] *= 1e-20  # the empty direction of a two-dimensional OpenFOAM case
    targets[..., :15] = vector.reshape(20, 1, 15)
    targets[..., 15:] = 1e5 + 1e-3 * targets[..., 15:]  # rounding noise of float32 upon a large mean
    normaliser.update(inputs, targets)
    affine = normaliser.affine()
    assert affine.input_std[1] == 1.0
    assert affine.input_std[0] != 1.0
    torch.testing.assert_close(affine.target_std[2:15:3], torch.ones(5), rtol=0, atol=0)
    assert (affine.target_std[0:15:3] < 2).all()
    assert (affine.target_std[0:15:3] != 1).all()
    torch.testing.assert_close(affine.target_std[15:], torch.ones(6), rtol=0, atol=0)
    predicted = affine.raw_targets(torch.full((1, SPEC.width), 0.3))[0]
    torch.testing.assert_close(predicted[2:15:3], affine.target_mean[2:15:3], rtol=0, atol=0)
    torch.testing.assert_close(predicted[15:], affine.target_mean[15:], rtol=0, atol=0)
    assert (predicted[0:15:3] != affine.target_mean[0:15:3]).all()


def test_a_sample_that_multiplies_the_standard_deviation_is_named() -> None:
    normaliser = Normaliser(SPEC)
    for i in range(150):
        normaliser.update(*rows(1, seed=i))
    assert normaliser.jumps() == ()
    inputs, targets = rows(1, seed=999)
    inputs[..., 0] = 0.25
    targets[..., 15:] = 3e20
    normaliser.update(inputs, targets)
    normaliser.update(inputs, targets)
    (jump,) = normaliser.jumps()
    assert jump.startswith("field T: the time step at a = 0.25, b = ")


@pytest.mark.parametrize(("inputs_on", "targets_on"), [(False, False), (True, False), (False, True)])
def test_off_means_identity_but_the_range_is_kept(inputs_on: bool, targets_on: bool) -> None:
    normaliser = Normaliser(SPEC, inputs=inputs_on, targets=targets_on)
    inputs, targets = rows(9)
    normaliser.update(inputs, targets)
    affine = normaliser.affine()
    assert bool((affine.input_std == 1).all() and (affine.input_mean == 0).all()) == (not inputs_on)
    assert bool((affine.target_std == 1).all() and (affine.target_mean == 0).all()) == (not targets_on)
    low, high = normaliser.input_range()
    np.testing.assert_array_equal(low, inputs[:, 0].min(axis=0))
    np.testing.assert_array_equal(high, inputs[:, 0].max(axis=0))


def test_affine_is_kept_until_the_samples_have_grown_by_a_hundredth() -> None:
    normaliser = Normaliser(SPEC)
    assert (normaliser.affine().target_std == 1).all()
    normaliser.update(*rows(200))
    first = normaliser.affine()
    normaliser.update(*rows(1, seed=1))
    assert normaliser.affine() is first
    normaliser.update(*rows(1, seed=2))
    assert normaliser.affine() is not first


def test_state_round_trip_keeps_statistics_and_the_affine_in_force() -> None:
    normaliser = Normaliser(SPEC)
    normaliser.update(*rows(200))
    affine = normaliser.affine()
    normaliser.update(*rows(1, seed=1))  # not enough to move the affine
    other = Normaliser(SPEC)
    other.load_state_dict(normaliser.state_dict())
    torch.testing.assert_close(other.affine().target_mean, affine.target_mean, rtol=0, atol=0)
    np.testing.assert_array_equal(other.statistics(), normaliser.statistics())
    wrong = Normaliser(SampleSpec(("a",), (FieldSpec("T", 1, (4,)),)))
    with pytest.raises(ValueError, match=r"expected 14 for the fields of this study"):
        wrong.load_state_dict(normaliser.state_dict())


def test_ranks_that_share_have_equal_affines_of_all_they_saw() -> None:
    whole, ranks = Normaliser(SPEC), [Normaliser(SPEC), Normaliser(SPEC)]
    for i, rank in enumerate(ranks):
        rank.update(*rows(10 + 5 * i, seed=i))
        whole.update(*rows(10 + 5 * i, seed=i))
    gathered = [rank.statistics() for rank in ranks]
    for rank in ranks:
        rank.share(gathered)
    a, b = (rank.affine() for rank in ranks)
    torch.testing.assert_close(a.target_std, b.target_std, rtol=0, atol=0)
    torch.testing.assert_close(a.target_std, whole.affine().target_std)
    ranks[0].update(*rows(100, seed=9))
    assert ranks[0].affine() is a


def test_updates_from_one_thread_and_reads_from_another_lose_nothing() -> None:
    normaliser = Normaliser(SPEC)
    inputs, targets = rows(400)

    def feed() -> None:
        for i in range(400):
            normaliser.update(inputs[i : i + 1], targets[i : i + 1])

    thread = threading.Thread(target=feed)
    thread.start()
    while thread.is_alive():
        assert torch.isfinite(normaliser.affine().target_std).all()
    thread.join()
    assert normaliser.statistics()[0] == 400
