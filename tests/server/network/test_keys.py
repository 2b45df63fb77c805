"""keys.json: made once, for its owner alone, changed by whole files."""

from __future__ import annotations

import os
import pickle
import stat
import threading
from pathlib import Path

import pytest

from penstock_client import read_connect_file
from penstock_client.atomic_file import write_private
from penstock_server.network import (
    KEYS_FILE,
    hand_out,
    load_keys,
    local_connect_file,
    open_keys,
    revoke_worker,
    write_connect_file,
)
from penstock_server.network.auth import AllowList
from penstock_server.network.keys import DEFAULT, KeysError, add_worker
from penstock_server.telemetry import Metrics


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_later_incarnations_keep_the_keys(tmp_path: Path) -> None:
    first = open_keys(tmp_path)
    assert mode(tmp_path / KEYS_FILE) == 0o600
    assert open_keys(tmp_path) == first
    assert list(first.workers) == [DEFAULT]
    assert len({first.server_secret, first.workers[DEFAULT].secret}) == 2


@pytest.mark.parametrize(
    ("name", "spoil", "text"),
    [
        ("readable by the group", lambda path: path.chmod(0o640), r"mode 0640, expected 0600: .*chmod 600 .*keys.json"),
        ("no JSON", lambda path: write_private(path, "{"), "does not hold the keys of a study .*: remove it"),
        ("other JSON", lambda path: write_private(path, "[1]"), "does not hold the keys of a study"),
        ("short key", lambda path: write_private(path, path.read_text().replace('"secret": "', '"secret": "x')), "40 characters"),
        ("a link", lambda path: path.symlink_to(path.rename(path.with_name("elsewhere"))), "cannot read the study's keys"),
    ],
)  # fmt: skip
def test_keys_that_may_have_been_read_or_changed_are_refused(tmp_path: Path, name, spoil, text) -> None:
    open_keys(tmp_path)
    spoil(tmp_path / KEYS_FILE)
    with pytest.raises(KeysError, match=text):
        open_keys(tmp_path)


def test_keys_of_another_user_are_refused(tmp_path: Path, monkeypatch) -> None:
    open_keys(tmp_path)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(KeysError, match=f"belongs to user {owner}, expected {owner + 1}.*run it as that user"):
        open_keys(tmp_path)


def test_names_are_given_once_and_again_after_they_were_revoked(tmp_path: Path) -> None:
    open_keys(tmp_path)
    first = add_worker(tmp_path, "node1", "workers/node1.json").workers["node1"]
    with pytest.raises(KeysError, match="a key named 'node1' already, in .*workers/node1.json"):
        add_worker(tmp_path, "node1", "x")
    revoke_worker(tmp_path, "node1")
    assert first.public in load_keys(tmp_path / KEYS_FILE).revoked()
    assert add_worker(tmp_path, "node1", "x").workers["node1"].public != first.public
    for name in ("", "../up", "a/b", ".hidden", "x" * 65):
        with pytest.raises(KeysError, match="cannot name a worker"):
            add_worker(tmp_path, name, "x")
    with pytest.raises(KeysError, match="expected one of default, node1"):
        revoke_worker(tmp_path, "node2")


def test_keys_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    open_keys(tmp_path)
    names = [f"node{i}" for i in range(24)]
    threads = [threading.Thread(target=add_worker, args=(tmp_path, name, "x")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(open_keys(tmp_path).workers) == sorted([DEFAULT, *names])


def test_secrets_do_not_show_and_do_not_travel(tmp_path: Path) -> None:
    keys = open_keys(tmp_path)
    secrets = [keys.server_secret, keys.workers[DEFAULT].secret]
    pickled = pickle.dumps(keys)
    assert not any(secret in repr(keys) + repr(keys.workers) for secret in secrets)
    assert not any(secret.encode() in pickled for secret in secrets)
    assert pickle.loads(pickled) == keys


def test_connect_files_follow_the_server_where_they_still_lie(tmp_path: Path, heat_study) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere.json"
    run.mkdir()
    keys = open_keys(run)
    connect = write_connect_file(run, heat_study(), 1, "tcp://127.0.0.1:1", keys)
    files = [hand_out(run, "a"), hand_out(run, "b", elsewhere), local_connect_file(run, 0), hand_out(run, "c")]
    assert files == [run / "workers/a.json", elsewhere, run / "workers/local-0.json", run / "workers/c.json"]
    assert len({read_connect_file(f).client_public_key for f in [connect, *files]}) == 5
    assert {mode(f) for f in [connect, *files]} == {0o600}
    assert local_connect_file(run, 0) == files[2]
    files[0].unlink()
    revoke_worker(run, "c")
    write_connect_file(run, heat_study(), 2, "tcp://127.0.0.1:2", open_keys(run))
    assert not files[0].exists()
    assert [read_connect_file(f).incarnation for f in [connect, *files[1:]]] == [2, 2, 2, 1]
    assert read_connect_file(elsewhere).control == "tcp://127.0.0.1:2"


def test_a_local_worker_whose_key_was_revoked_gets_another(tmp_path: Path, heat_study) -> None:
    keys = open_keys(tmp_path)
    write_connect_file(tmp_path, heat_study(), 1, "tcp://127.0.0.1:1", keys)
    before = read_connect_file(local_connect_file(tmp_path, 3))
    revoke_worker(tmp_path, "local-3")
    assert read_connect_file(local_connect_file(tmp_path, 3)).client_public_key != before.client_public_key


def test_the_allow_list_follows_the_file_and_outlives_one_that_cannot_be_used(tmp_path: Path) -> None:
    metrics = Metrics("test", "test")
    allow = AllowList(open_keys(tmp_path), metrics)
    worker = add_worker(tmp_path, "node1", "x").workers["node1"]
    assert allow.callback("", worker.public.encode())
    (tmp_path / KEYS_FILE).chmod(0o644)
    assert allow.callback("", worker.public.encode())
    assert metrics.total("keys_unusable") == 1
    (tmp_path / KEYS_FILE).chmod(0o600)
    revoke_worker(tmp_path, "node1")
    assert not allow.callback("", worker.public.encode())
    assert allow.withdrawn == {worker.public}
    assert not allow.callback("", b"x" * 40)
    assert metrics.handshakes_refused() == {"revoked_key": 1, "unknown_key": 1}
