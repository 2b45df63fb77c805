"""Checkpoints: complete or absent, verified when loaded, and loaded without executing code.

A checkpoint is a directory `checkpoints/00001200/`. For each part it holds `PART.json` (the structure: dicts, lists,
numbers, text) and `PART.safetensors` (all tensors and arrays); `manifest.json` has the SHA-256 of each file. The
directory is written under another name, flushed to the disk and then renamed, so that a crash leaves the previous
checkpoint untouched.

Several trainer ranks write one checkpoint together: rank 0 writes the common parts and its own, rank 1 writes parts
`rank-1.NAME`, and so on. All of them must be able to write to the run directory.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from penstock_server.checkpoint.manifest import FORMAT, MANIFEST, Damaged, verify
from penstock_server.checkpoint.part import CheckpointError, read_part, write_part
from penstock_server.training import ALONE, RankGroup

_NUMBER = re.compile(r"[0-9]{8,}")
_UNFINISHED = ".writing-"
# What reading the files of a part raises where they are damaged. RecursionError: JSON nested too deep.
_DAMAGE = (OSError, ValueError, RecursionError, SafetensorError)
_log = logging.getLogger("penstock.checkpoint")


class Parts(Mapping[str, Any]):
    """The parts of a checkpoint by name; each is read from the disk on access and not kept.

    Access raises KeyError where there is no part of that name, CheckpointError where the part cannot be read.

    Args:
        path: directory of the checkpoint.
        names: names of the parts.
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
                f"part {name!r} of checkpoint {self._path} cannot be read ({type(error).__name__}: {error}); "
                "remove this checkpoint to go on from the one before"
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose checksums have been verified.

    Attributes:
        number: its number.
        path: its directory.
        ranks: number of trainer ranks that wrote it.
        parts: its parts by name, tensors on the CPU.
        skipped: why later checkpoints were skipped, one line each.
    """

    number: int
    path: Path
    ranks: int
    parts: Parts
    skipped: tuple[str, ...] = ()

    def of_rank(self, rank: int, name: str) -> Any:
        """Return the part of this name that trainer rank `rank` wrote."""
        return self.parts[part_of_rank(rank, name)]


def part_of_rank(rank: int, name: str) -> str:
    """Return the name in the checkpoint of a part that trainer rank `rank` writes."""
    return name if rank == 0 else f"rank-{rank}.{name}"


def write_checkpoint(
    directory: Path,
    number: int,
    parts: Mapping[str, Any],
    *,
    keep: int = 2,
    group: RankGroup = ALONE,
    on_left_over: Callable[[str], None] = lambda _text: None,
) -> Path:
    """Write a checkpoint, then remove all but the last `keep`.

    All ranks of the group call it together, each with its own parts; only one checkpoint may be written at a time.
    Besides the parts it takes memory for one piece of CHUNK_BYTES.

    Args:
        directory: folder of all checkpoints of the study.
        number: number of the checkpoint; rank 0's counts.
        parts: name to content: dicts (with str or int keys), lists, tuples, tensors, arrays or `Rows`, numbers, text,
            bool and None.
        keep: number of checkpoints that are kept.
        group: trainer ranks that write together.
        on_left_over: called on rank 0 with what could not be removed and why. The checkpoint is complete all the same.

    Returns:
        The directory of the checkpoint.

    Raises:
        CheckpointError: a part holds something else.
        OSError: the files of one of the ranks cannot be written (raised on every rank); earlier checkpoints are kept.
    """
    first = group.rank == 0
    left_over: list[str] = []

    def remove(path: Path) -> None:
        try:
            shutil.rmtree(path)
        except OSError as error:
            left_over.append(f"{path} cannot be removed ({error.strerror or error})")
            _log.warning("%s", left_over[-1])

    def begin() -> tuple[int, str]:
        directory.mkdir(parents=True, exist_ok=True)
        for unfinished in directory.glob(f"{_UNFINISHED}*"):
            remove(unfinished)
        for name in itertools.chain((f"{number:08d}",), (f"{number:08d}-{n}" for n in itertools.count(2))):
            with suppress(FileExistsError):  # one that could not be removed
                (directory / f"{_UNFINISHED}{name}").mkdir()
                return number, f"{_UNFINISHED}{name}"
        raise AssertionError("there are more names than folders")

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
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in (temporary / MANIFEST, temporary):
            _flush(path)
        if target.exists():  # a damaged checkpoint that loading has skipped; the next one removes it
            target.rename(temporary.with_name(f"{temporary.name}-damaged-{time.time_ns()}"))
        temporary.rename(target)

    # Rank 0 says where: other ranks may have continued from another checkpoint, or seen another folder.
    number, name = _on_all_ranks(group, begin if first else _nothing)[0]
    target, temporary = directory / f"{number:08d}", directory / name
    try:
        written = _on_all_ranks(group, write)
        _on_all_ranks(group, complete if first else _nothing)
    except BaseException:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if first:
        # The new checkpoint is complete. What cannot be removed now is tried again with the next one.
        try:
            _flush(directory)
        except OSError as error:
            left_over.append(f"{directory} cannot be flushed to the disk ({error.strerror or error})")
        for old in _numbered(directory)[:-keep]:
            remove(old)
        for text in left_over:
            on_left_over(text)
    return target


def _nothing() -> None:
    pass


def _on_all_ranks(group: RankGroup, work: Callable[[], Any]) -> list[Any]:
    """Run `work` on every rank; returns all results (plain data), or raises OSError on all where one has failed."""
    failure: OSError | None = None
    done: Any = None
    try:
        done = work()
    except OSError as error:
        failure = error
    texts = group.gather_text(json.dumps([done, "" if failure is None else failure.strerror or str(failure)]))
    if failure is not None:
        raise failure
    results = [json.loads(text) for text in texts]
    for rank, (_, fault) in enumerate(results):
        if fault:
            raise OSError(f"trainer rank {rank}: {fault}")
    return [result for result, _ in results]


def load_latest(directory: Path) -> Checkpoint:
    """Load the last undamaged checkpoint; damaged ones after it are logged and named in `skipped`.

    Args:
        directory: folder of all checkpoints of the study.

    Raises:
        CheckpointError: there is no undamaged checkpoint.
    """
    skipped: list[str] = []
    for path in reversed(_numbered(directory)):
        try:
            manifest = verify(path)
        except Damaged as error:
            skipped.append(f"checkpoint {path} is damaged ({error}); using the one before")
            _log.warning("%s", skipped[-1])
            continue
        return Checkpoint(manifest.number, path, manifest.ranks, Parts(path, tuple(manifest.parts)), tuple(skipped))
    why = "; ".join(skipped) if skipped else "it holds none"
    raise CheckpointError(
        f"no whole checkpoint in {directory}: {why}; "
        "start the study again with `penstock run`, or move that folder away and resume from nothing"
    )


def load_latest_if_any(directory: Path) -> Checkpoint | None:
    """Load the last undamaged checkpoint, or return None where no checkpoint has been written.

    Args:
        directory: folder of all checkpoints of the study.

    Raises:
        CheckpointError: all checkpoints are damaged.
    """
    return load_latest(directory) if _numbered(directory) else None


def read_last(directory: Path, part: str) -> Any:
    """Read a small part of the last checkpoint that has it, without comparing checksums.

    Args:
        directory: folder of all checkpoints of the study.
        part: its name.

    Returns:
        Its content; None where no checkpoint has such a part.
    """
    for path in reversed(_numbered(directory)):
        with suppress(*_DAMAGE):
            return read_part(path, part)
    return None


def _numbered(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if _NUMBER.fullmatch(p.name)), key=lambda p: int(p.name))


def _flush(path: Path) -> None:
    """Flush the content of a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
