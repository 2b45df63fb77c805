"""`penstock key` on a run directory, as its users call it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.run import prepare
from penstock_client import read_connect_file
from penstock_server.network import open_keys, write_connect_file

Penstock = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, heat_study) -> Path:
    """A run directory that has been started once."""
    directory = tmp_path / "run"
    directory.mkdir()
    prepare(heat_study(), directory)
    write_connect_file(directory, heat_study(), 1, "tcp://127.0.0.1:1", open_keys(directory))
    return directory


def test_add_list_and_revoke(run: Path, tmp_path: Path, penstock: Penstock) -> None:
    out = tmp_path / "node7.json"
    added = penstock("key", "add", run, "node7", "--out", out)
    assert (added.code, added.out) == (0, f"written to {out}\n")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert penstock("key", "add", run, "node8").out == f"written to {run}/workers/node8.json\n"
    assert penstock("key", "revoke", run, "node8").out == "node8: revoked\n"
    listed = penstock("key", "list", run).out
    rows = [line.split() for line in listed.splitlines()]
    assert [row[:2] for row in rows] == [["default", "allowed"], ["node7", "allowed"], ["node8", "revoked"]]
    info = read_connect_file(out)
    assert rows[1][2:] == [info.client_public_key, str(out)]
    assert info.client_secret_key not in listed


def test_what_is_wrong_is_one_line(run: Path, tmp_path: Path, penstock: Penstock) -> None:
    for arguments, text in [
        (("add", run, "default"), "there is a key named 'default' already"),
        (("add", run, "../up"), "'../up' cannot name a worker"),
        (("add", run, "node1", "--out", tmp_path / "no" / "x.json"), "there is no folder"),
        (("revoke", run, "node1"), "there is no key named 'node1': expected one of default"),
        (("list", tmp_path), "cannot read the study's keys"),
        (("add", tmp_path, "node1"), "is no run directory"),
    ]:
        called = penstock("key", *arguments)
        assert called.code in (1, 2), arguments
        assert text in called.err
        assert called.err.count("\n") == 1
