"""A part of a checkpoint in two files: PART.json, its structure (dicts, lists, numbers, text), and PART.safetensors, all its arrays.

Neither is read by executing code. Large arrays are written piece by piece, so that no second copy of them is needed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from penstock_client.errors import PenstockError

CHUNK_BYTES = 8 * 2**20
PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_CODES = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"},
    **{f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


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


def write_part(directory: Path, name: str, value: Any) -> dict[str, dict[str, Any]]:
    """Write a part's two files; returns bytes and SHA-256 of each. Raises CheckpointError for what is no part, OSError for the disk."""
    if not PART_NAME.fullmatch(name) or name == "manifest":
        raise CheckpointError(f"{name!r} cannot name a part of a checkpoint: use letters, digits, _ . -")
    tensors: dict[str, Tensor | Rows] = {}
    structure = json.dumps(_flatten(value, name, tensors)).encode()
    return {
        f"{name}.json": _write_file(directory / f"{name}.json", iter([structure])),
        f"{name}.safetensors": _write_file(directory / f"{name}.safetensors", _safetensors(tensors)),
    }


def read_part(directory: Path, name: str) -> Any:
    """The inverse of `write_part`; for damaged files it raises whatever reading them raises."""
    tensors = load_file(directory / f"{name}.safetensors")
    return _unflatten(json.loads((directory / f"{name}.json").read_text()), tensors)


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
