"""Messages that are nearly right: valid ones, from the shared vectors and from whole sessions, changed as bytes decide."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

from choices import DOUBLES, Choices

Frames = list[bytes]

VECTORS = json.loads((Path(__file__).parents[1] / "wire" / "vectors.json").read_text())
HEADER_FIELDS = (
    *((4, 2), (6, 1), (7, 1), (8, 4), (12, 4), (16, 8)),
    *((24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 8)),
)
"""Offset and size of each field of the header after its magic (docs/wire-format.md)."""
MAX_FRAMES = 8


def vector_messages() -> list[Frames]:
    """Every valid message of tests/wire/vectors.json: header and payload."""
    messages = VECTORS["messages"] + VECTORS["references"]
    return [[bytes.fromhex(m["header_hex"]), bytes.fromhex(m.get("payload_hex", ""))] for m in messages]


def mutated(c: Choices, seeds: Sequence[Frames]) -> Frames:
    """One of `seeds`, changed up to three times; one message in four is left as it is."""
    frames = list(c.of(seeds))
    for _ in range(c.byte() & 3):
        _MUTATIONS[c.byte() % len(_MUTATIONS)](c, frames, seeds)
    return frames


def mutated_bytes(c: Choices, data: bytes) -> bytes:
    """`data` with bytes changed, cut out, put in or doubled."""
    if not data:
        return c.take(64)
    at = c.below(len(data))
    kind = c.byte() % 6
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << c.byte() % 8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + bytes([c.byte()]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + data[at + 1 + c.byte() :]
    if kind == 3:
        return data[:at] + c.take(32) + data[at:]
    if kind == 4:
        return data[:at] + data[at : at + c.byte()] * (1 + c.byte() % 8) + data[at:]
    return data[:at]


def _header_field(c: Choices, frames: Frames, _seeds: Sequence[Frames]) -> None:
    at = c.below(max(1, len(frames))) & ~1
    if at < len(frames) and len(frames[at]) == 64:
        start, size = c.of(HEADER_FIELDS)
        value = struct.pack("<d", c.of(DOUBLES)) if start == 56 else c.number(size)
        frames[at] = frames[at][:start] + value + frames[at][start + size :]


def _small_header_field(c: Choices, frames: Frames, _seeds: Sequence[Frames]) -> None:
    """A value that may well be valid: another step, offset, simulation, attempt, rank, kind."""
    if frames and len(frames[0]) == 64:
        start, size = c.of(HEADER_FIELDS[1:-1])
        frames[0] = frames[0][:start] + (c.byte() % 24).to_bytes(size, "little") + frames[0][start + size :]


def _number_in_payload(c: Choices, frames: Frames, _seeds: Sequence[Frames]) -> None:
    if len(frames) > 1 and frames[-1]:
        size = c.of((4, 8))
        at = min(c.below(len(frames[-1])), max(0, len(frames[-1]) - size))
        frames[-1] = frames[-1][:at] + c.number(size) + frames[-1][at + size :]


def _double_in_payload(c: Choices, frames: Frames, _seeds: Sequence[Frames]) -> None:
    if len(frames) > 1 and len(frames[-1]) >= 8:
        at = 8 * c.below(len(frames[-1]) // 8)
        frames[-1] = frames[-1][:at] + struct.pack("<d", c.of(DOUBLES)) + frames[-1][at + 8 :]


def _bytes_of_frame(c: Choices, frames: Frames, _seeds: Sequence[Frames]) -> None:
    if frames:
        at = c.below(len(frames))
        frames[at] = mutated_bytes(c, frames[at])


def _part_of_payload(c: Choices, frames: Frames, _seeds: Sequence[Frames]) -> None:
    """A piece of fewer elements that says so: count and payload stay of one mind."""
    if len(frames) > 1 and len(frames[0]) == 64 and len(frames[1]) >= 8:
        keep = 4 * (1 + c.below(len(frames[1]) // 4))
        itemsize = 4 if frames[0][7] in (1, 3) else 8
        frames[1] = frames[1][: keep // itemsize * itemsize]
        count = len(frames[1]) // itemsize
        frames[0] = frames[0][:48] + count.to_bytes(8, "little") + frames[0][56:]


def _frames(c: Choices, frames: Frames, seeds: Sequence[Frames]) -> None:
    kind = c.byte() % 5
    if kind == 0 and frames:
        frames.pop(c.below(len(frames)))
    elif kind == 1:
        frames.append(c.take(80))
    elif kind == 2:
        frames += c.of(seeds)
    elif kind == 3 and frames:
        frames *= 2
    elif frames:
        frames[-1] = c.of(seeds)[-1]  # the payload of another message
    del frames[MAX_FRAMES:]


_MUTATIONS = (
    _header_field,
    _small_header_field,
    _small_header_field,
    _part_of_payload,
    _number_in_payload,
    _double_in_payload,
    _bytes_of_frame,
    _frames,
)
