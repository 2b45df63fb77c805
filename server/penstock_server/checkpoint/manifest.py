"""manifest.json of a checkpoint: its number, its ranks, its parts, and size and SHA-256 of each of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock_client.errors import PenstockError
from penstock_server.checkpoint.part import PART_NAME

FORMAT = 4
"""Version of the layout of a checkpoint."""

MANIFEST = "manifest.json"
_MAX_BYTES = 2**26  # a few hundred bytes for each part, a few parts for each trainer rank


class Damaged(PenstockError):
    """The checkpoint is damaged; the message says how."""


class _Format(BaseModel):
    """The one key that all formats have."""

    format: int


class FileEntry(BaseModel):
    """One file of a checkpoint.

    Attributes:
        bytes: size of the file.
        sha256: SHA-256 of its content, hexadecimal.
    """

    model_config = ConfigDict(strict=True)

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """The content of manifest.json.

    Attributes:
        format: version of the layout.
        number: number of the checkpoint.
        ranks: number of trainer ranks that wrote it.
        parts: names of the parts.
        files: file name to size and checksum.
    """

    model_config = ConfigDict(strict=True)

    format: int
    number: int
    ranks: int = Field(ge=1)
    parts: list[str]
    files: dict[str, FileEntry]


def verify(path: Path) -> Manifest:
    """Read the manifest of a checkpoint and compare every file with it.

    Args:
        path: directory of the checkpoint.

    Returns:
        The manifest.

    Raises:
        Damaged: the manifest or a file is missing or damaged.
    """
    try:
        manifest = _read(path)
        for name, entry in manifest.files.items():
            _compare(path, name, entry)
    except OSError as error:
        raise Damaged(f"{Path(error.filename or path).name}: {error.strerror}") from error
    except ValueError as error:  # a file name that the system does not take, such as one with a null byte
        raise Damaged(f"{MANIFEST} is not readable: {error}") from error
    return manifest


def _read(path: Path) -> Manifest:
    file = path / MANIFEST
    if file.stat().st_size > _MAX_BYTES:
        raise Damaged(f"{MANIFEST} has more than {_MAX_BYTES} bytes")
    text = file.read_bytes()
    try:
        version = _Format.model_validate_json(text).format
        if version != FORMAT:
            raise Damaged(f"format {version}, expected {FORMAT}")
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Damaged(f"{MANIFEST} is not readable: {place + ': ' if place else ''}{first['msg']}") from error
    if manifest.number != int(path.name):
        raise Damaged(f"{MANIFEST} is that of checkpoint {manifest.number}")
    if manifest.ranks > max(1, len(manifest.parts)):
        raise Damaged(f"{MANIFEST} names {manifest.ranks} trainer ranks and {len(manifest.parts)} parts")
    for name in manifest.parts:
        if not PART_NAME.fullmatch(name) or not {f"{name}.json", f"{name}.safetensors"} <= manifest.files.keys():
            raise Damaged(f"{MANIFEST} names no files of part {name!r}")
    return manifest


def _compare(path: Path, name: str, entry: FileEntry) -> None:
    file = path / name
    size = file.stat().st_size
    if file.parent != path or not file.is_file():
        raise Damaged(f"{name} is not a file of it")
    if size != entry.bytes:
        raise Damaged(f"{name} has {size} bytes, expected {entry.bytes}")
    with file.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != entry.sha256:
            raise Damaged(f"{name} has another SHA-256 than its manifest says")
