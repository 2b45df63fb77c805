"""Checkpoint folders that cannot be removed, and the number that all ranks agree on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from groups import ranks, result

from penstock_server.checkpoint import CheckpointError, check_part, checkpoint, load_latest, write_checkpoint
from penstock_server.checkpoint.manifest import verify


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of folders that cannot be removed, as on NFS where a file in them is still open."""
    names: set[str] = set()
    remove = shutil.rmtree

    def rmtree(path: Path, **options: bool) -> None:
        if Path(path).name not in names:
            remove(path, **options)
        elif not options.get("ignore_errors"):
            raise OSError(39, "Directory not empty")

    monkeypatch.setattr(checkpoint.shutil, "rmtree", rmtree)
    return names


def test_what_an_earlier_server_left_stops_no_checkpoint(tmp_path: Path, stuck: set[str]) -> None:
    (tmp_path / ".writing-00000003").mkdir()
    stuck.add(".writing-00000003")
    told: list[str] = []
    for number in (3, 4):
        path = write_checkpoint(tmp_path, number, {"n": {"n": number}}, on_left_over=told.append)
        assert load_latest(tmp_path).path == path == tmp_path / f"{number:08d}"
    assert told == [f"{tmp_path}/.writing-00000003 cannot be removed (Directory not empty)"] * 2


def test_a_damaged_checkpoint_that_cannot_be_removed_is_replaced(tmp_path: Path, stuck: set[str]) -> None:
    damaged = tmp_path / "00000002"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{}")
    stuck.add(damaged.name)
    write_checkpoint(tmp_path, 2, {"n": {"n": 2}})
    assert load_latest(tmp_path).number == 2


def test_old_checkpoints_that_stay_are_told_of(tmp_path: Path, stuck: set[str]) -> None:
    told: list[str] = []
    stuck.add("00000001")
    for number in (1, 2, 3):
        write_checkpoint(tmp_path, number, {"n": {"n": 1}}, keep=1, on_left_over=told.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000003"]
    assert told == [f"{tmp_path}/00000001 cannot be removed (Directory not empty)"] * 2


def test_ranks_that_count_differently_write_one_checkpoint(tmp_path: Path) -> None:
    with ranks(2, "checkpoint", tmp_path) as processes:
        assert [result(process) for process in processes] == [str(tmp_path / "00000005")] * 2
    assert set(load_latest(tmp_path).parts) == {"own", "rank-1.own"}


def test_a_manifest_of_a_thousand_ranks_can_be_read(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, {f"rank-{rank}.{'n' * 20}": None for rank in range(4000)})
    assert (path / "manifest.json").stat().st_size > 2**20
    assert len(verify(path).parts) == 4000


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.eye(2).to_sparse(), "a tensor of layout torch.sparse_coo"),
        (torch.empty(2, device="meta"), "on meta: a checkpoint holds dense tensors only"),
        ({"extra": object()}, r"model\.extra is a object"),
    ],
)
def test_what_cannot_be_kept_is_known_without_writing(value: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_part("model", value)
