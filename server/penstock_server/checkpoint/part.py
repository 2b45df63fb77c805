"""A part of a checkpoint in two files: PART.json with its structure, PART.safetensors with all its tensors and arrays.

Both are read without executing code. The safetensors file is written here and not by safetensors' own writer, which
needs all tensors in memory at once: a buffer may fill most of the memory, and its rows are read in pieces while it is
used further. Reading uses safetensors' reader.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from penstock_client.errors import PenstockError

CHUNK_BYTES = 8 * 2**20
"""Bytes of a tensor that are written at a time."""

PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Names of parts: they become names of files."""

_CODES = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"},
    **{"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
    **{f"{sign}int{bits}": f"{sign.upper() or 'I'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class CheckpointError(PenstockError):
    """The state cannot be written as plain data, or there is no undamaged checkpoint."""


@runtime_checkable
class Rows(Protocol):
    """A large array that is written in pieces, so that no second copy of it is needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""

    def chunks(self) -> Iterator[NDArray[Any]]:
        """Yield the rows in order, in pieces along the first axis; each is written before the next is taken."""


def write_part(directory: Path, name: str, value: Any) -> dict[str, dict[str, Any]]:
    """Write the two files of a part.

    Args:
        directory: directory of the checkpoint.
        name: name of the part.
        value: content of the part, as for `write_checkpoint`.

    Returns:
        File name to {"bytes": size, "sha256": checksum}.

    Raises:
        CheckpointError: the name cannot be used, or the content cannot be written as plain data.
        OSError: the files cannot be written.
    """
    if not PART_NAME.fullmatch(name) or name == "manifest":
        raise CheckpointError(f"{name!r} cannot name a part of a checkpoint: use letters, digits, _ . -")
    tensors: dict[str, Tensor | Rows] = {}
    structure = json.dumps(_flatten(value, name, tensors)).encode()
    return {
        f"{name}.json": _write_file(directory / f"{name}.json", iter([structure])),
        f"{name}.safetensors": _write_file(directory / f"{name}.safetensors", _safetensors(tensors)),
    }


def check_part(name: str, value: Any) -> None:
    """Check that a checkpoint can hold a value, without writing or copying anything.

    Args:
        name: of the part, for the message.
        value: content of the part, as for `write_checkpoint`.

    Raises:
        CheckpointError: the content cannot be written as plain data.
    """
    _flatten(value, name, {})


def read_part(directory: Path, name: str) -> Any:
    """Read what `write_part` wrote.

    Args:
        directory: directory of the checkpoint.
        name: name of the part.

    Raises:
        OSError: a file cannot be read.
        ValueError: PART.json is damaged.
        RecursionError: PART.json is nested too deep.
        SafetensorError: PART.safetensors is damaged.
    """
    tensors = load_file(directory / f"{name}.safetensors")
    return _unflatten(json.loads((directory / f"{name}.json").read_text()), tensors)


def _write_file(path: Path, pieces: Iterator[bytes | memoryview]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as file:
        for piece in pieces:
            rest = memoryview(piece)
            digest.update(rest)
            size += len(rest)
            while rest:  # a disk that becomes full takes a part of a piece before it refuses the rest
                rest = rest[file.write(rest) :]
    return {"sha256": digest.hexdigest(), "bytes": size}


def _safetensors(tensors: Mapping[str, Tensor | Rows]) -> Iterator[bytes | memoryview]:
    """Yield the content of a safetensors file: length of the header, header in JSON, tensors one after the other."""
    # In order of falling item size, so that each tensor begins at a multiple of its own.
    names = sorted(tensors, key=lambda name: (-_numpy_dtype(tensors[name]).itemsize, name))
    header, offset = {}, 0
    for name in names:
        tensor = tensors[name]
        end = offset + math.prod(tensor.shape) * _numpy_dtype(tensor).itemsize
        header[name] = {
            "dtype": _CODES[_dtype_name(tensor)],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
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
    if flat.stride(0) != 1:  # a single number may have any stride
        flat = flat.new_empty(flat.shape).copy_(flat)
    content = flat.view(torch.uint8).numpy()  # as bytes: numpy has no bfloat16
    for begin in range(0, len(content), CHUNK_BYTES):
        # A copy, since a block of held-out samples may change between hashing and writing.
        yield _bytes(content[begin : begin + CHUNK_BYTES].copy())


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _numpy_dtype(tensor: Tensor | Rows) -> np.dtype[Any]:
    return np.dtype(f"V{tensor.dtype.itemsize}") if isinstance(tensor, Tensor) else tensor.dtype


def _flatten(value: Any, path: str, tensors: dict[str, Tensor | Rows]) -> Any:
    """Return JSON for `value`: what JSON cannot express becomes {"kind": content}; tensors are added to `tensors`."""
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
        return _stored("tensor", value.detach(), path, tensors)
    if isinstance(value, np.ndarray):
        try:
            # An array of zero dimensions or of the other byte order needs a copy; ordinary ones do not.
            tensor = torch.from_numpy(np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C"))
        except TypeError as error:
            raise CheckpointError(f"{path} is an array of {value.dtype}: expected numbers or bool") from error
        return _stored("array", tensor, path, tensors)
    if isinstance(value, Rows):
        return _stored("array", value, path, tensors)
    raise CheckpointError(
        f"{path} is a {type(value).__name__}: a checkpoint holds tensors, arrays, numbers and text only"
    )


def _stored(kind: str, tensor: Tensor | Rows, path: str, tensors: dict[str, Tensor | Rows]) -> dict[str, Any]:
    """Add a tensor to `tensors` under a name of its own; returns its JSON."""
    if isinstance(tensor, Tensor) and tensor.is_complex():
        # As pairs of real numbers, since safetensors has no complex128.
        return {"complex": _stored(kind, torch.view_as_real(tensor.resolve_conj()), path, tensors)}
    if isinstance(tensor, Tensor) and (tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta):
        raise CheckpointError(
            f"{path} is a tensor of layout {tensor.layout} and dtype {_dtype_name(tensor)} on {tensor.device.type}: "
            "a checkpoint holds dense tensors only"
        )
    if _dtype_name(tensor) not in _CODES:
        raise CheckpointError(f"{path} is of dtype {_dtype_name(tensor)}: expected one of {', '.join(_CODES)}")
    name, number = path, 1
    while name in tensors:  # {"a.b": {"c": ...}} and {"a": {"b.c": ...}} have the same path
        number += 1
        name = f"{path}#{number}"
    tensors[name] = tensor
    return {kind: name}


def _dtype_name(tensor: Tensor | Rows) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _unflatten(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the inverse of `_flatten`. Raises ValueError for a node that `_flatten` does not write."""
    if not isinstance(node, dict):
        return node
    if len(node) != 1:
        raise ValueError(f"a node of {len(node)} kinds")
    ((kind, content),) = node.items()
    if kind == "dict":
        return {_key(k): _unflatten(v, tensors) for k, v in _pairs(content)}
    if kind in ("list", "tuple"):
        values = [_unflatten(v, tensors) for v in _items(content)]
        return values if kind == "list" else tuple(values)
    if kind == "complex":
        return _complex(_unflatten(content, tensors))
    if kind not in ("tensor", "array"):
        raise ValueError(f"unknown kind {kind!r}")
    if not isinstance(content, str) or content not in tensors:
        raise ValueError(f"no tensor {content!r}")
    tensor = tensors.pop(content)
    # The tensor is copied into its own memory, which is writable and aligned, so that sums give the same bits as
    # before. A large array stays mapped from the file (privately), since its user copies it.
    if kind == "array" and tensor.nbytes > CHUNK_BYTES:
        return tensor.numpy()
    own = tensor.clone()
    return own if kind == "tensor" else own.numpy()


def _items(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise ValueError(f"expected a list, got {type(content).__name__}")
    return content


def _pairs(content: Any) -> list[Any]:
    pairs = _items(content)
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError("expected pairs of key and value")
    return pairs


def _key(key: Any) -> str | int:
    if not isinstance(key, (str, int)):
        raise ValueError(f"{key!r} is no key")
    return key


def _complex(pairs: Any) -> Any:
    """Return the complex tensor or array whose real and imaginary parts are along the last axis of `pairs`."""
    if isinstance(pairs, np.ndarray):
        return _complex(torch.from_numpy(pairs.copy())).numpy()
    real = (torch.float16, torch.float32, torch.float64)
    if not isinstance(pairs, Tensor) or pairs.dtype not in real or pairs.shape[-1:] != (2,):
        raise ValueError("expected pairs of real numbers")
    return torch.view_as_complex(pairs)
