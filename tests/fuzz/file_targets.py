"""What is read from files: connect.json, and checkpoints that were damaged, or forged with checksums that hold."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from choices import Choices
from mutations import mutated_bytes

from penstock_client.connect_file import ConnectInfo, read_connect_file
from penstock_client.errors import ConnectError
from penstock_client.wire import Header, Kind
from penstock_server.checkpoint import load_latest, write_checkpoint
from penstock_server.checkpoint.part import CheckpointError

_MEMORY = Path("/dev/shm")
FOLDER = Path(tempfile.mkdtemp(prefix="penstock-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
logging.getLogger("penstock.checkpoint").setLevel(logging.ERROR)  # each damaged checkpoint is a warning

_KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
_CONNECT = json.dumps(
    vars(ConnectInfo("a \u20ac study", 3, "tcp://127.0.0.1:4711", _KEY, _KEY, _KEY)), indent=1
).encode()
_PARTS_OF_JSON = (
    *(b"{}", b"[]", b"null", b"true", b"-1", b"4294967296", b"1e999", b"NaN", b"Infinity", b"1.5", b'""', b'"\\ud800"'),
    *(
        b"9" * 5000,
        b'"\\u0000"',
        b"\xff",
        b'{"dict": [["a", 1]]}',
        b'{"tensor": "state.a"}',
        b'{"list": 3}',
        b'{"dict": [1]}',
    ),
    *(
        b'{"tuple": {"a": 1}}',
        b'{"dict": [[{"list": []}, 1]]}',
        b'{"array": []}',
        b'{"eval": "1/0"}',
        b'{"a": 1, "b": 2}',
    ),
    *(b"../../../etc/hostname", b"/dev/zero", b"manifest.json"),
)


def _text(c: Choices, data: bytes) -> bytes:
    """JSON text, nearly."""
    for _ in range(c.byte() & 3):
        kind = c.byte() % 8
        if kind < 3:
            data = mutated_bytes(c, data)
            continue
        # A value, or whatever stands between two of the signs of JSON, becomes something else.
        signs = [i for i, byte in enumerate(data) if byte in b'{}[]:,"'] or [0]
        at = c.of(signs)
        end = next((i for i in signs if i > at + (c.byte() & 31)), len(data))
        if kind == 3:
            n = c.of((10, 1000, 5000))
            data = data[: at + 1] + c.of((b"[", b'{"a":', b'{"list": [')) * n + data[end:]
        elif kind == 4:
            data = data[:at] + data[end:]
        else:
            data = data[: at + 1] + c.of(_PARTS_OF_JSON) + data[end:]
    return data


def connect_file(data: bytes) -> int:
    """connect.json is read, or refused with ConnectError; what was read can be used."""
    c = Choices(data)
    path = FOLDER / "connect.json"
    tried = 0
    while c.more:
        tried += 1
        path.touch(0o600)
        path.write_bytes(_text(c, _CONNECT))
        try:
            info = read_connect_file(path)
        except ConnectError as error:
            assert len(str(error)) < 100_000
            continue
        Header(Kind.HELLO, info.incarnation).pack()
        assert all(len(key) == 40 for key in (info.server_public_key, info.client_public_key, info.client_secret_key))
    return tried


# --- checkpoints --------------------------------------------------------------------------------------------------------

_STATE = {
    "a": torch.arange(12.0).reshape(3, 4),
    "n": {0: [1, 2.5, None, True], "text": "x", "nested": ({"deep": torch.ones(2, dtype=torch.bfloat16)},)},
    "array": np.arange(6, dtype=np.int64),
}
_CHECKPOINTS = FOLDER / "checkpoints"
write_checkpoint(_CHECKPOINTS, 1, {"state": {"number": 1}, "other": {"n": [1]}})
_DAMAGED = write_checkpoint(_CHECKPOINTS, 2, {"state": _STATE, "other": {"n": [2]}})
_FILES = {p.name: p.read_bytes() for p in _DAMAGED.iterdir()}
_NAMES = sorted(_FILES)


def _tensors(c: Choices, data: bytes) -> bytes:
    """A safetensors file, nearly: a u64 length, that much JSON, and the numbers."""
    size = int.from_bytes(data[:8], "little")
    head, numbers = data[8 : 8 + size], data[8 + size :]
    kind = c.byte() % 4
    if kind == 0:
        return c.number(8) + head + numbers
    if kind == 1:
        return mutated_bytes(c, data)
    head = _text(c, head)
    if kind == 2:
        numbers = mutated_bytes(c, numbers)
    return len(head).to_bytes(8, "little") + head + numbers


def checkpoint(data: bytes) -> int:
    """A later checkpoint is damaged: the one before is used. It is forged: its parts are read as plain data, or refused."""
    c = Choices(data)
    tried = 0
    while c.more:
        tried += 1
        files = dict(_FILES)
        forged = c.byte() & 1
        for _ in range(1 + c.byte() % 2):
            name = c.of(_NAMES)
            files[name] = _tensors(c, files[name]) if name.endswith(".safetensors") else _text(c, files[name])
        if forged:
            sums = {n: {"sha256": hashlib.sha256(f).hexdigest(), "bytes": len(f)} for n, f in files.items()}
            del sums["manifest.json"]
            manifest = json.loads(_FILES["manifest.json"]) | {"files": sums}
            files["manifest.json"] = json.dumps(manifest).encode()
        _check(files, changed=files != _FILES, forged=bool(forged))
    return tried


def _check(files: dict[str, bytes], *, changed: bool, forged: bool) -> None:
    for name, content in files.items():
        (_DAMAGED / name).write_bytes(content)
    found = load_latest(_CHECKPOINTS)
    if found.number == 1:
        assert changed
        assert len(found.skipped) == 1
        assert found.parts["state"] == {"number": 1}
        return
    same = all(files[name] == _FILES[name] for name in _NAMES if name != "manifest.json")
    assert same or forged, "damaged, and not noticed"
    for name in found.parts:
        try:
            part = found.parts[name]
        except CheckpointError:
            assert forged
        else:
            _plain(part)


def _plain(value: object) -> None:
    """Nothing but data, to any depth."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        assert isinstance(item, (dict, list, tuple, str, int, float, torch.Tensor, np.ndarray, type(None))), type(item)
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item
