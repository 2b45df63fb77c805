import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from penstock_server.checkpoint import CheckpointError, checkpoint, load_latest, write_checkpoint

# A nested state of every kind of value, with keys that JSON alone would turn into text.
STATE = {
    "optimizer": {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(4, 3)}},
        "param_groups": [{"betas": (0.9, 0.999)}],
    },
    "buffer": {
        "targets": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "seen": np.array([1, 0], dtype=np.uint32),
        "mask": np.array([True, False]),
        "empty": np.empty((0, 5)),
        "scalar": np.array(2.5),
        "strided": np.arange(12).reshape(3, 4)[:, ::2],
    },
    "rng": {"bit_generator": "PCG64", "state": {"state": 2**127 + 1, "inc": 7}, "has_uint32": 0},
    "half": torch.ones(3, dtype=torch.bfloat16),
    "none": None,
    "flag": True,
    "infinite": float("inf"),
    "text": "näme with . and /",
    "numpy_number": np.float64(0.1),
}


def assert_same(got: object, want: object) -> None:
    if isinstance(want, dict):
        assert isinstance(got, dict)
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key])
    elif isinstance(want, (list, tuple)):
        assert type(got) is type(want)
        for g, w in zip(got, want, strict=True):  # type: ignore[call-overload]
            assert_same(g, w)
    elif isinstance(want, torch.Tensor):
        assert isinstance(got, torch.Tensor)
        assert got.dtype == want.dtype
        assert torch.equal(got, want)
    elif isinstance(want, np.ndarray):
        assert isinstance(got, np.ndarray)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
        assert got.shape == want.shape
    else:
        assert got == want


def test_round_trip_of_every_kind_of_value(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 12, {"state": STATE, "other": {"n": 1}})
    assert path == tmp_path / "00000012"
    found = load_latest(tmp_path)
    assert (found.number, found.path, list(found.parts), found.skipped) == (12, path, ["state", "other"], ())
    assert_same(found.parts["state"], STATE)
    assert found.parts["other"] == {"n": 1}
    with pytest.raises(KeyError, match="has no part 'nothing'; it has state, other"):
        found.parts["nothing"]
    assert not list(path.glob("*.pkl"))
    assert all(not p.read_bytes().startswith(b"\x80") for p in path.iterdir())  # nothing that pickle would open


def test_tensors_that_share_memory_are_kept_as_two(tmp_path: Path) -> None:
    tied = torch.randn(3)
    write_checkpoint(tmp_path, 1, {"model": {"a": tied, "b": tied, "view": tied[:2]}})
    part = load_latest(tmp_path).parts["model"]
    assert torch.equal(part["a"], tied)
    assert torch.equal(part["b"], tied)
    assert torch.equal(part["view"], tied[:2])


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3, 100000000):
        write_checkpoint(tmp_path, number, {"n": {"n": number}}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000003", "100000000"]
    assert load_latest(tmp_path).number == 100000000


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "manifest", "no_manifest", "format"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, harm: str) -> None:
    write_checkpoint(tmp_path, 1, {"state": STATE})
    path = write_checkpoint(tmp_path, 2, {"state": STATE})
    victim = path / "state.safetensors"
    if harm == "truncate":
        victim.write_bytes(victim.read_bytes()[:-7])
    elif harm == "flip":
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(content)
    elif harm == "remove":
        victim.unlink()
    elif harm == "manifest":
        (path / "manifest.json").write_text('{"format": 1, "num')
    elif harm == "no_manifest":
        (path / "manifest.json").unlink()
    else:
        (path / "manifest.json").write_text('{"format": 99}')
    found = load_latest(tmp_path)
    assert found.number == 1
    (why,) = found.skipped
    assert "00000002 is damaged (" in why
    assert_same(found.parts["state"], STATE)
    write_checkpoint(tmp_path, 2, {"state": STATE})  # the damaged one is replaced
    assert load_latest(tmp_path).number == 2


def test_no_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=r"no whole checkpoint in .*: it holds none; start the study again"):
            load_latest(directory)
    path = write_checkpoint(tmp_path, 1, {"state": STATE})
    (path / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"damaged \(state\.json: No such file"):
        load_latest(tmp_path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"a": {"f": print}},
            r"a\.f is a builtin_function_or_method: a checkpoint holds tensors, arrays, numbers and text only",
        ),
        ({"a": {"o": np.array([None, print])}}, r"a\.o is an array of object: expected numbers or bool"),
        ({"a": {(1, 2): 3}}, r"a has the key \(1, 2\)"),
        ({"../a": {}}, r"'\.\./a' cannot name a part"),
        ({"manifest": {}}, r"'manifest' cannot name a part"),
    ],
)
def test_what_would_need_code_is_refused_and_leaves_nothing(tmp_path: Path, parts: dict, message: str) -> None:
    write_checkpoint(tmp_path, 1, {"fine": {"n": 1}})
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(tmp_path, 2, parts)
    assert [p.name for p in tmp_path.iterdir()] == ["00000001"]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_tensors_and_arrays(tmp_path: Path, dtype: torch.dtype) -> None:
    """A Fourier layer with complex weights, as most neural operators have."""
    weights = torch.randn(3, 2, dtype=dtype)
    state = {"model": weights, "conjugate": weights.conj(), "array": weights.numpy(), "one": weights[0, 0]}
    write_checkpoint(tmp_path, 1, {"state": state})
    assert_same(load_latest(tmp_path).parts["state"], state)


def test_a_dtype_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.w is of dtype float8_e8m0fnu: expected one of float64, "):
        write_checkpoint(tmp_path, 1, {"a": {"w": torch.zeros(2, dtype=torch.float8_e8m0fnu)}})


@pytest.mark.filterwarnings("ignore:ComplexHalf support")
def test_half_complex_tensors(tmp_path: Path) -> None:
    pairs = torch.randn(3, 2).half()
    write_checkpoint(tmp_path, 1, {"state": {"w": torch.view_as_complex(pairs)}})
    got = load_latest(tmp_path).parts["state"]["w"]
    assert got.dtype == torch.complex32
    assert torch.equal(torch.view_as_real(got), pairs)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint64])
def test_small_floats_and_unsigned_integers(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {"w": torch.arange(4).to(dtype)}
    write_checkpoint(tmp_path, 1, {"state": state})
    got = load_latest(tmp_path).parts["state"]["w"]
    assert (got.dtype, got.view(torch.uint8).tolist()) == (dtype, state["w"].view(torch.uint8).tolist())


def test_keys_whose_paths_are_alike(tmp_path: Path) -> None:
    one, two, three = (torch.full((2,), float(n)) for n in (1, 2, 3))
    states = [{"a.b": {"c": one}, "a": {"b.c": two}}, {1: one, "1": two}, {"x": {"y": one}, "x.y": two, "x.y#2": three}]
    write_checkpoint(tmp_path, 1, {f"part{n}": state for n, state in enumerate(states)})
    parts = load_latest(tmp_path).parts
    for n, state in enumerate(states):
        assert_same(parts[f"part{n}"], state)


def test_a_checkpoint_counts_as_written_where_old_ones_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where a file that is still open keeps its folder from being removed."""
    write_checkpoint(tmp_path, 1, {"n": {"n": 1}}, keep=1)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(39, "Directory not empty")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", refuse)
        write_checkpoint(tmp_path, 2, {"n": {"n": 2}}, keep=1)
    assert load_latest(tmp_path).number == 2
    write_checkpoint(tmp_path, 3, {"n": {"n": 3}}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["00000003"]


def test_an_error_of_the_code_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, 1, {"state": STATE})
    found = load_latest(tmp_path)

    def broken(*_: object) -> None:
        raise AttributeError("a mistake")

    monkeypatch.setattr(checkpoint, "read_part", broken)
    with pytest.raises(AttributeError, match="a mistake"):
        found.parts["state"]


_WRITER = """
import sys, numpy as np
from pathlib import Path
from penstock_server.checkpoint.checkpoint import write_checkpoint
arrays = {f"a{i}": np.full((256, 1024), i, np.float32) for i in range(64)}
number = 0
while True:
    number += 1
    print(number, flush=True)
    write_checkpoint(Path(sys.argv[1]), number, {"buffer": {"number": number, **arrays}})
"""


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    caught_in_the_middle = 0
    for attempt in range(2):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        with writer.stdout:
            for line in writer.stdout:
                if int(line) == 3:  # two are whole, the third is being written
                    break
            deadline = time.monotonic() + 30
            while not list(tmp_path.glob(".writing-*/*.safetensors")) and time.monotonic() < deadline:
                pass
            time.sleep(0.03 * attempt)
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
        caught_in_the_middle += bool(list(tmp_path.glob(".writing-*")))
        found = load_latest(tmp_path)
        assert found.number >= 2
        assert found.skipped == ()
        assert found.parts["buffer"]["number"] == found.number
        write_checkpoint(tmp_path, found.number + 1, {"buffer": {"number": found.number + 1}})
        assert not list(tmp_path.glob(".writing-*"))  # what the killed writer left is gone
        for path in tmp_path.iterdir():
            assert path.name.isdigit()
    assert caught_in_the_middle
