"""The reader of growing files gives every line once, wherever it finds the file cut."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.live.lines import GrowingLines
from penstock_server.telemetry import LineFile, read_lines

values = st.dictionaries(st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=30)), max_size=4)
rubbish = st.sampled_from([b"", b"\n", b"[1, 2]\n", b"not json\n", b"\xff\xfe\n"])


def read_all(reader: GrowingLines, most: int) -> list[dict[str, Any]]:
    """Everything that is there now, read in bites of `most` bytes."""
    found: list[dict[str, Any]] = []
    while new := reader.read(most):
        found += new
    return found


@given(
    st.lists(st.tuples(values, rubbish), max_size=12), st.lists(st.integers(0, 2000), max_size=8), st.integers(1, 90)
)
def test_any_cut_of_the_file_gives_the_same_lines(
    lines: list[tuple[dict[str, Any], bytes]], cuts: list[int], most: int
) -> None:
    data = b"".join(json.dumps(value).encode() + b"\n" + other for value, other in lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.jsonl"
        reader, found = GrowingLines(path), []
        for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
            path.write_bytes(data[:cut])
            for _ in range(len(data) + 1):  # a look may find rubbish alone
                found += reader.read(most)
        assert found == list(read_lines(path)) == [value for value, _ in lines]
        assert reader.starts == 1


@given(st.lists(values, min_size=1, max_size=5), st.binary(max_size=40), st.lists(values, max_size=5))
def test_the_part_of_a_line_that_a_killed_process_left_is_never_given(
    before: list[dict[str, Any]], torn: bytes, after: list[dict[str, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.jsonl"
        file, reader = LineFile(path), GrowingLines(path)
        for value in before:
            file.append(json.dumps(value))
        with path.open("ab") as end:
            end.write(torn.replace(b"\n", b" "))
        found = read_all(reader, 1000)
        for value in after:  # the first of them cuts the part off
            file.append(json.dumps(value))
        assert found + read_all(reader, 1000) == before + after


def test_a_file_that_begins_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = GrowingLines(path)
    assert reader.read() == []
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert reader.read() == [{"a": 1}, {"a": 2}]
    other = tmp_path / "other"
    other.write_text('{"a": 3}\n{"a": 4}\n{"a": 5}\n')
    other.replace(path)  # longer than before
    assert (reader.read(), reader.starts) == ([], 2)
    assert reader.read() == [{"a": 3}, {"a": 4}, {"a": 5}]
    path.write_text('{"a": 6}\n')  # the same file, shorter
    assert (reader.read(), reader.starts) == ([], 3)
    assert reader.read() == [{"a": 6}]
    path.write_text('{"b": 6}\n{"b": 7}\n')  # the same file, longer, with another beginning
    assert (reader.read(), reader.starts) == ([], 4)
    assert reader.read() == [{"b": 6}, {"b": 7}]
    path.unlink()
    assert (reader.read(), reader.starts) == ([], 5)


def test_a_line_longer_than_one_look_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps({"text": "x" * 5000}) + '\n{"a": 1}\n')
    reader = GrowingLines(path)
    assert read_all(reader, 100) == [{"text": "x" * 5000}, {"a": 1}]
