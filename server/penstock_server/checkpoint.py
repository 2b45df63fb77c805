"""Checkpoints: whole or not there at all, checked when read, and read without executing code.

A checkpoint is a directory `checkpoints/00001200/` with, for each part, `PART.json` (the structure: dicts, lists, numbers, text)
and `PART.safetensors` (every tensor and array), and `manifest.json` with the SHA-256 of each file. It is written under
another name, flushed to the disk and then renamed, so that a crash leaves the one before untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock_client.errors import PenstockError

_FORMAT = 3
_PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NUMBER = re.compile(r"[0-9]{8,}")
_log = structlog.get_logger("penstock.checkpoint")


class CheckpointError(PenstockError):
    """State that cannot be written without executing code on reading, or no checkpoint that is whole."""


class Parts(Mapping[str, Any]):
    """The parts of a checkpoint by name, each read from the disk when it is asked for and not kept."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._path, self._names = path, names

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(f"checkpoint {self._path} has no part {name!r}; it has {', '.join(self._names)}")
        tensors = load_file(self._path / f"{name}.safetensors")
        return _unflatten(json.loads((self._path / f"{name}.json").read_text()), tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose checksums hold.

    number: as it was written. parts: what was written, tensors on the CPU. skipped: why later ones were passed over, a line each.
    """

    number: int
    path: Path
    parts: Parts
    skipped: tuple[str, ...] = ()


def write_checkpoint(directory: Path, number: int, parts: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write `parts` as checkpoint `number`, then remove all but the last `keep`; returns its directory.

    A part is made of dicts (with str or int keys), lists, tuples, tensors, arrays, numbers, text, bool and None. One writer at a time.
    Raises CheckpointError for anything else, OSError when the disk does not take it; the checkpoints before stay.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob(".writing-*"):
        shutil.rmtree(left_over)
    target = directory / f"{number:08d}"
    temporary = directory / f".writing-{target.name}"
    temporary.mkdir()
    try:
        for name, value in parts.items():
            _write_part(temporary, name, value)
        files = {p.name: {"sha256": _sha256(p), "bytes": p.stat().st_size} for p in sorted(temporary.iterdir())}
        manifest = {"format": _FORMAT, "number": number, "parts": list(parts), "files": files}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for path in [*temporary.iterdir(), temporary]:
            _flush(path)
        if target.exists():  # a damaged one that reading has passed over
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush(directory)
    for old in _numbered(directory)[:-keep]:
        shutil.rmtree(old)
    return target


def load_latest(directory: Path) -> Checkpoint:
    """The last checkpoint that is whole; damaged ones after it are logged and named in `skipped`.

    Raises CheckpointError when there is none.
    """
    skipped: list[str] = []
    for path in reversed(_numbered(directory)):
        fault, manifest = _verify(path)
        if manifest is not None:
            return Checkpoint(int(manifest["number"]), path, Parts(path, tuple(manifest["parts"])), tuple(skipped))
        skipped.append(f"checkpoint {path} is damaged ({fault}); using the one before")
        _log.warning("checkpoint_damaged", path=str(path), fault=fault)
    why = "; ".join(skipped) if skipped else "it holds none"
    raise CheckpointError(f"no whole checkpoint in {directory}: {why}; start the study anew with `penstock run`")


def _numbered(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NUMBER.fullmatch(p.name)), key=lambda p: int(p.name))


def _verify(path: Path) -> tuple[str, dict[str, Any] | None]:
    """("", manifest) of a whole checkpoint, else (what is wrong, None)."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["format"] != _FORMAT:
            return f"format {manifest['format']}, expected {_FORMAT}", None
        for name, want in manifest["files"].items():
            file = path / name
            if file.stat().st_size != want["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, expected {want['bytes']}", None
            if _sha256(file) != want["sha256"]:
                return f"{name} has another SHA-256 than its manifest says", None
    except OSError as error:
        return f"{Path(error.filename or path).name}: {error.strerror}", None
    except (ValueError, KeyError, TypeError) as error:
        return f"manifest.json is not readable: {error}", None
    return "", manifest


def _write_part(directory: Path, name: str, value: Any) -> None:
    if not _PART_NAME.fullmatch(name) or name == "manifest":
        raise CheckpointError(f"{name!r} cannot name a part of a checkpoint: use letters, digits, _ . -")
    tensors: dict[str, Tensor] = {}
    structure = _flatten(value, name, tensors)
    (directory / f"{name}.json").write_text(json.dumps(structure))
    save_file(_unshared(tensors), directory / f"{name}.safetensors")


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for `value`: what JSON cannot hold becomes {"kind": content}; tensors go to `tensors` under their path."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int)):
                raise CheckpointError(f"{path} has the key {key!r}: a checkpoint holds dicts with text or int keys")
        return {"dict": [[k, _flatten(v, f"{path}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(v, f"{path}.{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, Tensor):
        tensors[path] = value.detach()
        return {"tensor": path}
    if isinstance(value, np.ndarray):
        try:
            # An array of zero dimensions or of the other byte order needs a copy; ordinary ones do not.
            tensors[path] = torch.from_numpy(np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C"))
        except TypeError as error:
            raise CheckpointError(f"{path} is an array of {value.dtype}: expected numbers or bool") from error
        return {"array": path}
    raise CheckpointError(
        f"{path} is a {type(value).__name__}: a checkpoint holds tensors, arrays, numbers and text only"
    )


def _unflatten(node: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "dict":
        return {k: _unflatten(v, tensors) for k, v in content}
    if kind == "list":
        return [_unflatten(v, tensors) for v in content]
    if kind == "tuple":
        return tuple(_unflatten(v, tensors) for v in content)
    # Copied into memory of its own: aligned, so that sums come out the same to the last bit as before, and writable.
    own = tensors.pop(content).clone()
    return own if kind == "tensor" else own.numpy()


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors of which no two share memory (tied weights do): safetensors refuses those."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        whole = tensor.cpu().contiguous()
        storage = whole.untyped_storage().data_ptr()
        out[name] = whole.clone() if storage in seen else whole
        seen.add(storage)
    return out


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Make sure that a file's or a directory's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
