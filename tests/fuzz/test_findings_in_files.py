"""Findings of fuzzing in files: connect files, manifests and parts of checkpoints, each with the file that did it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from penstock_client.connect_file import ConnectInfo, read_connect_file
from penstock_client.errors import ConnectError
from penstock_client.zmq_transport import ZmqTransport
from penstock_server.checkpoint import load_latest, write_checkpoint
from penstock_server.checkpoint.manifest import FORMAT
from penstock_server.checkpoint.part import CheckpointError
from penstock_server.network import next_incarnation

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
GOOD = {
    "study": "s",
    "incarnation": 1,
    "control": "tcp://127.0.0.1:9",
    **dict.fromkeys(("server_public_key", "client_public_key", "client_secret_key"), KEY),
}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"study":' * 5000,
        json.dumps(GOOD | {"incarnation": -1}),
        json.dumps(GOOD | {"incarnation": 2**32}),
        json.dumps(GOOD | {"server_public_key": "short"}),
        json.dumps(GOOD | {"client_secret_key": KEY[:39] + "\u20ac"}),
        json.dumps(GOOD | {"client_secret_key": KEY[:39] + "\n"}),
        json.dumps(GOOD) + " " * 70_000,
    ],
    ids=["deep list", "deep object", "negative", "too large", "short key", "no Z85", "line end", "long"],
)
def test_a_connect_file_that_cannot_be_used_is_refused_when_it_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "connect.json"
    path.touch(0o600)
    path.write_text(json.dumps(GOOD))
    assert read_connect_file(path).study == "s"
    path.write_text(text)
    with pytest.raises(ConnectError, match=r"connect\.json"):
        read_connect_file(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"incarnation": null}', "{}", '{"incarnation": 1'])
def test_a_damaged_connect_file_in_a_run_directory_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "connect.json").write_text(text)
    with pytest.raises(ConnectError, match=r"connect\.json is not a connect\.json of this version"):
        next_incarnation(tmp_path)


@pytest.mark.parametrize("endpoint", ["", "tcp://", "nonsense", "tcp://127.0.0.1:port", "tcp://127.0.0.1:9\ud800"])
def test_an_endpoint_that_is_none_is_an_error_of_the_clients_own(endpoint: str) -> None:
    transport = ZmqTransport(ConnectInfo(**GOOD))
    with pytest.raises(ConnectError, match="is connect.json the current one"):
        transport.connect(endpoint)
    transport.close()


# --- checkpoints --------------------------------------------------------------------------------------------------------


def forge(path: Path, name: str, content: bytes) -> None:
    """Change a file, and the manifest so that its checksums hold."""
    (path / name).write_bytes(content)
    changed = json.loads((path / "manifest.json").read_text())
    changed["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (path / "manifest.json").write_text(json.dumps(changed))


def manifest(**changes: object) -> str:
    """Make the manifest of a checkpoint without parts, with these changes."""
    return json.dumps({"format": FORMAT, "number": 2, "ranks": 1, "parts": [], "files": {}} | changes)


MANIFESTS = {
    "deep": "[" * 100_000,
    "list": "[]",
    "files are a list": manifest(parts=["state"], files=[]),
    "no number": json.dumps({"format": FORMAT, "ranks": 1, "parts": [], "files": {}}),
    "another number": manifest(number=1),
    "infinite number": manifest(number=float("inf")),
    "infinitely many ranks": manifest(ranks=float("inf")),
    "more ranks than parts": manifest(ranks=10**30),
    "no rank": manifest(ranks=0),
    "ranks are text": manifest(ranks="1"),
    "parts without files": manifest(parts=["state"]),
    "parts are numbers": manifest(parts=[1]),
    "a file elsewhere": manifest(files={"/dev/null": {"bytes": 0, "sha256": ""}}),
    "a file above": manifest(files={"../00000001/manifest.json": {"bytes": 0}}),
    "long": " " * 2**21,
}


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_none_sends_the_reader_to_the_checkpoint_before(tmp_path: Path, text: str) -> None:
    write_checkpoint(tmp_path, 1, {"state": {"n": 1}})
    (write_checkpoint(tmp_path, 2, {"state": {"n": 2}}) / "manifest.json").write_text(text)
    found = load_latest(tmp_path)
    assert (found.number, len(found.skipped)) == (1, 1)
    assert "format" not in found.skipped[0]
    assert found.parts["state"] == {"n": 1}


HUGE = json.dumps({"state.a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}).encode()
PARTS = {
    "deep": ("state.json", b'{"list": [' * 5000),
    "deep and whole": ("state.json", b'{"list": [' * 400 + b"]}" * 400),
    "no tensor of that name": ("state.json", b'{"tensor": "b"}'),
    "twice the same tensor": ("state.json", b'{"list": [{"tensor": "state.a"}, {"tensor": "state.a"}]}'),
    "code": ("state.json", b'{"eval": "state.a"}'),
    "two kinds": ("state.json", b'{"tensor": "state.a", "array": "state.a"}'),
    "unhashable key": ("state.json", b'{"dict": [[[1], 2]]}'),
    "no JSON": ("state.json", b"\x80\x04."),
    "header of 2^60 bytes": ("state.safetensors", (2**60).to_bytes(8, "little") + b"{}"),
    "tensor of 2^62 bytes": (
        "state.safetensors",
        len(HUGE).to_bytes(8, "little") + HUGE,
    ),
    "pickle": ("state.safetensors", b"\x80\x04cos\nsystem\n(S'true'\ntR."),
}


@pytest.mark.parametrize(("name", "content"), PARTS.values(), ids=PARTS)
def test_a_part_that_cannot_be_read_says_so(tmp_path: Path, name: str, content: bytes) -> None:
    path = write_checkpoint(tmp_path, 2, {"state": {"a": np.arange(3.0)}})
    forge(path, name, content)
    parts = load_latest(tmp_path).parts
    if name == "state.json" and content.endswith(b"]}" * 400):
        assert isinstance(parts["state"], list)
        return
    with pytest.raises(CheckpointError, match="part 'state' of checkpoint .* cannot be read"):
        parts["state"]
