"""Checkpoints: whole or not there at all, checked when read, and read without executing code.

A checkpoint is a directory `checkpoints/00001200/` with, for each part, `PART.json` (the structure: dicts, lists, numbers, text)
and `PART.safetensors` (every tensor and array), and `manifest.json` with the SHA-256 of each file. It is written under
another name, flushed to the disk and then renamed, so that a crash leaves the one before untouched.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from penstock_client.errors import PenstockError

CHUNK_BYTES = 8 * 2**20
_FORMAT = 3
_CODES = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"},
    **{f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NUMBER = re.compile(r"[0-9]{8,}")
_MAX_MANIFEST = 2**20  # bytes; one line a file, of which there are two a part
# What reading files raises that are not what was written. RecursionError: JSON nested too deep.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError, SafetensorError)
_log = structlog.get_logger("penstock.checkpoint")


class CheckpointError(PenstockError):
    """State that cannot be written without executing code on reading, or no checkpoint that is whole."""


class Rows(Protocol):
    """A large array that is written piece by piece, so that no second copy of it is needed."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def chunks(self) -> Iterator[NDArray[Any]]:
        """The rows in order, in pieces along the first axis; each is written before the next is asked for."""


class Parts(Mapping[str, Any]):
    """The parts of a checkpoint by name, each read from the disk when it is asked for and not kept.

    Asking for one raises KeyError where there is none of that name, CheckpointError where it cannot be read.
    """

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._path, self._names = path, names

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(f"checkpoint {self._path} has no part {name!r}; it has {', '.join(self._names)}")
        try:
            tensors = load_file(self._path / f"{name}.safetensors")
            return _unflatten(json.loads((self._path / f"{name}.json").read_text()), tensors)
        except _DAMAGE as error:
            raise CheckpointError(
                f"part {name!r} of checkpoint {self._path} cannot be read ({type(error).__name__}: {error}); remove this checkpoint "
                "to go on from the one before"
            ) from error

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

    A part is made of dicts (with str or int keys), lists, tuples, tensors, arrays or `Rows`, numbers, text, bool and None. One writer at a
    time. Beside the parts, memory for one piece of CHUNK_BYTES is all it takes.
    Raises CheckpointError for anything else, OSError when the disk does not take it; the checkpoints before stay.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob(".writing-*"):
        shutil.rmtree(left_over)
    target = directory / f"{number:08d}"
    temporary = directory / f".writing-{target.name}"
    temporary.mkdir()
    try:
        files: dict[str, dict[str, Any]] = {}
        for name, value in parts.items():
            files |= _write_part(temporary, name, value)
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
    raise CheckpointError(
        f"no whole checkpoint in {directory}: {why}; "
        "start the study anew with `penstock run`, or move that folder away and resume from nothing"
    )


def load_latest_if_any(directory: Path) -> Checkpoint | None:
    """As `load_latest`; None where there is none, whole or damaged: the study had not come so far."""
    return load_latest(directory) if _numbered(directory) else None


def _numbered(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NUMBER.fullmatch(p.name)), key=lambda p: int(p.name))


def _verify(path: Path) -> tuple[str, dict[str, Any] | None]:
    """("", manifest) of a whole checkpoint, else (what is wrong, None)."""
    try:
        with (path / "manifest.json").open("rb") as opened:
            text = opened.read(_MAX_MANIFEST + 1)
        if len(text) > _MAX_MANIFEST:
            return f"manifest.json has more than {_MAX_MANIFEST} bytes", None
        manifest = json.loads(text)
        if manifest["format"] != _FORMAT:
            return f"format {manifest['format']}, expected {_FORMAT}", None
        if manifest["number"] != int(path.name):
            return f"manifest.json is that of checkpoint {manifest['number']}", None
        files = manifest["files"]
        for name in manifest["parts"]:
            if not _PART_NAME.fullmatch(name) or not {f"{name}.json", f"{name}.safetensors"} <= files.keys():
                return f"manifest.json names no files of part {name!r}", None
        for name, want in files.items():
            file = path / name
            size = file.stat().st_size
            if file.parent != path or not file.is_file():
                return f"{name} is not a file of it", None
            if size != want["bytes"]:
                return f"{name} has {size} bytes, expected {want['bytes']}", None
            if _sha256(file) != want["sha256"]:
                return f"{name} has another SHA-256 than its manifest says", None
    except OSError as error:
        return f"{Path(error.filename or path).name}: {error.strerror}", None
    except _DAMAGE as error:
        return f"manifest.json is not readable: {type(error).__name__}: {error}", None
    return "", manifest


def _write_part(directory: Path, name: str, value: Any) -> dict[str, dict[str, Any]]:
    """Write a part's two files; returns what the manifest says of them."""
    if not _PART_NAME.fullmatch(name) or name == "manifest":
        raise CheckpointError(f"{name!r} cannot name a part of a checkpoint: use letters, digits, _ . -")
    tensors: dict[str, Tensor | Rows] = {}
    structure = json.dumps(_flatten(value, name, tensors)).encode()
    return {
        f"{name}.json": _write_file(directory / f"{name}.json", iter([structure])),
        f"{name}.safetensors": _write_file(directory / f"{name}.safetensors", _safetensors(tensors)),
    }


def _write_file(path: Path, pieces: Iterator[bytes | memoryview]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as file:
        for piece in pieces:
            rest = memoryview(piece)
            digest.update(rest)
            size += len(rest)
            while rest:  # a disk that has become full takes a part first, and refuses the rest
                rest = rest[file.write(rest) :]
    return {"sha256": digest.hexdigest(), "bytes": size}


def _safetensors(tensors: Mapping[str, Tensor | Rows]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file: the header's length, a header in JSON, the tensors in one piece each after the other.

    Not safetensors' own writer, which wants everything in memory at once.
    """
    # By falling item size, so that each begins at a multiple of its own.
    names = sorted(tensors, key=lambda name: (-_numpy_dtype(tensors[name]).itemsize, name))
    header, offset = {}, 0
    for name in names:
        tensor = tensors[name]
        end = offset + math.prod(tensor.shape) * _numpy_dtype(tensor).itemsize
        code = _CODES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for name in names:
        yield from _pieces(tensors[name])


def _pieces(tensor: Tensor | Rows) -> Iterator[memoryview]:
    if not isinstance(tensor, Tensor):
        for chunk in tensor.chunks():
            yield _bytes(np.ascontiguousarray(chunk))
        return
    flat = tensor.cpu().contiguous().reshape(-1)
    if flat.stride(0) != 1:  # of a single number
        flat = flat.new_empty(flat.shape).copy_(flat)
    content = flat.view(torch.uint8).numpy()  # as bytes: numpy has no bfloat16
    for begin in range(0, len(content), CHUNK_BYTES):
        # A copy: a held-out block may be filled further while this is hashed and then written.
        yield _bytes(content[begin : begin + CHUNK_BYTES].copy())


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _numpy_dtype(tensor: Tensor | Rows) -> np.dtype[Any]:
    return np.dtype(f"V{tensor.dtype.itemsize}") if isinstance(tensor, Tensor) else tensor.dtype


def _flatten(value: Any, path: str, tensors: dict[str, Tensor | Rows]) -> Any:
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
    if hasattr(value, "chunks"):
        tensors[path] = value
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
    if kind not in ("tensor", "array"):
        raise ValueError(f"unknown kind {kind!r}")
    # Copied into memory of its own: aligned, so that sums come out the same to the last bit as before, and writable. A large array
    # stays where it is mapped from the file (privately): it is on its way into memory of its own anyway.
    tensor = tensors.pop(content)
    if kind == "array" and tensor.nbytes > CHUNK_BYTES:
        return tensor.numpy()
    own = tensor.clone()
    return own if kind == "tensor" else own.numpy()


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
