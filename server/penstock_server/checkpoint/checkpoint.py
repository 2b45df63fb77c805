"""Checkpoints: whole or not there at all, checked when read, and read without executing code.

A checkpoint is a directory `checkpoints/00001200/` with, for each part, `PART.json` (the structure: dicts, lists, numbers, text)
and `PART.safetensors` (every tensor and array), and `manifest.json` with the SHA-256 of each file. It is written under
another name, flushed to the disk and then renamed, so that a crash leaves the one before untouched.

Several trainer ranks write one checkpoint together: rank 0 what all have in common and parts of its own, rank 1 parts `rank-1.NAME`, and so
on. The run directory lies where all of them can write.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from penstock_server.checkpoint.part import PART_NAME, CheckpointError, read_part, write_part
from penstock_server.training import ALONE, RankGroup

FORMAT = 4
_NUMBER = re.compile(r"[0-9]{8,}")
_MAX_MANIFEST = 2**20  # bytes; one line a file, of which there are two a part
# What reading files raises that are not what was written. RecursionError: JSON nested too deep.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError, SafetensorError)
_log = logging.getLogger("penstock.checkpoint")


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
            return read_part(self._path, name)
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

    number: as it was written. ranks: how many have written it. parts: what was written, tensors on the CPU. skipped: why later ones
    were passed over, a line each.
    """

    number: int
    path: Path
    ranks: int
    parts: Parts
    skipped: tuple[str, ...] = ()

    def of_rank(self, rank: int, name: str) -> Any:
        """A part that each rank has one of."""
        return self.parts[part_of_rank(rank, name)]


def part_of_rank(rank: int, name: str) -> str:
    """What it is called in a checkpoint."""
    return name if rank == 0 else f"rank-{rank}.{name}"


def write_checkpoint(
    directory: Path, number: int, parts: Mapping[str, Any], *, keep: int = 2, group: RankGroup = ALONE
) -> Path:
    """Write `parts` as checkpoint `number`, then remove all but the last `keep`; returns its directory.

    All ranks of the group call it with parts of their own. A part is made of dicts (with str or int keys), lists, tuples,
    tensors, arrays or `Rows`, numbers, text, bool and None. One writer at a time. Beside the parts, memory for one piece of
    CHUNK_BYTES is all it takes.
    Raises CheckpointError for anything else, OSError on every rank when the disk does not take what one of them writes; the checkpoints
    before stay.
    """
    target = directory / f"{number:08d}"
    temporary = directory / f".writing-{target.name}"
    first = group.rank == 0

    def begin() -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for left_over in directory.glob(".writing-*"):
            shutil.rmtree(left_over)
        temporary.mkdir()

    def write() -> dict[str, Any]:
        files: dict[str, Any] = {}
        for name, value in parts.items():
            files |= write_part(temporary, part_of_rank(group.rank, name), value)
        for name in files:
            _flush(temporary / name)
        return {"parts": [part_of_rank(group.rank, name) for name in parts], "files": files}

    def complete() -> None:
        manifest: dict[str, Any] = {"format": FORMAT, "number": number, "ranks": group.size, "parts": [], "files": {}}
        for of_rank in written:
            manifest["parts"] += of_rank["parts"]
            manifest["files"] |= of_rank["files"]
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for path in (temporary / "manifest.json", temporary):
            _flush(path)
        if target.exists():  # a damaged one that reading has passed over
            shutil.rmtree(target)
        temporary.rename(target)

    try:
        _by_all(group, begin if first else _nothing)
        written = _by_all(group, write)
        _by_all(group, complete if first else _nothing)
    except BaseException:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if first:
        _flush(directory)
        for old in _numbered(directory)[:-keep]:
            shutil.rmtree(old)
    return target


def _nothing() -> None:
    pass


def _by_all(group: RankGroup, work: Callable[[], Any]) -> list[Any]:
    """What each rank's work returned (plain data), once all have done theirs. Raises OSError on every rank where one of them has."""
    failure: OSError | None = None
    done: Any = None
    try:
        done = work()
    except OSError as error:
        failure = error
    told = group.gather_text(json.dumps([done, "" if failure is None else failure.strerror or str(failure)]))
    if failure is not None:
        raise failure
    results = [json.loads(text) for text in told]
    for rank, (_, fault) in enumerate(results):
        if fault:
            raise OSError(f"trainer rank {rank}: {fault}")
    return [result for result, _ in results]


def load_latest(directory: Path) -> Checkpoint:
    """The last checkpoint that is whole; damaged ones after it are logged and named in `skipped`.

    Raises CheckpointError when there is none.
    """
    skipped: list[str] = []
    for path in reversed(_numbered(directory)):
        fault, manifest = _verify(path)
        if manifest is not None:
            parts = Parts(path, tuple(manifest["parts"]))
            return Checkpoint(int(manifest["number"]), path, int(manifest["ranks"]), parts, tuple(skipped))
        skipped.append(f"checkpoint {path} is damaged ({fault}); using the one before")
        _log.warning("%s", skipped[-1])
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
        if manifest["format"] != FORMAT:
            return f"format {manifest['format']}, expected {FORMAT}", None
        if manifest["number"] != int(path.name):
            return f"manifest.json is that of checkpoint {manifest['number']}", None
        ranks = manifest["ranks"]
        if not isinstance(ranks, int) or not 1 <= ranks <= max(1, len(manifest["parts"])):
            return f"manifest.json names {ranks} trainer ranks and {len(manifest['parts'])} parts", None
        files = manifest["files"]
        for name in manifest["parts"]:
            if not PART_NAME.fullmatch(name) or not {f"{name}.json", f"{name}.safetensors"} <= files.keys():
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
