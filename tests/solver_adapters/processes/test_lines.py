"""Splitting the output of a program into lines."""

from __future__ import annotations

import tracemalloc

import pytest

from penstock_solvers.processes.lines import LONGEST_LINE, LineSplitter


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_do_not_depend_on_how_the_output_arrives(size: int) -> None:
    output = "one\r\ntwo\n\nthree \N{GREEK SMALL LETTER NU}\nno end".encode()
    splitter = LineSplitter()
    lines = [line for i in range(0, len(output), size) for line in splitter.feed(output[i : i + size])]
    assert [*lines, *splitter.feed(b"")] == ["one", "two", "", "three \N{GREEK SMALL LETTER NU}", "no end"]
    assert splitter.feed(b"") == []


def test_output_without_line_feeds_takes_bounded_memory() -> None:
    splitter, taken = LineSplitter(), 0
    chunk = b"." * 65536
    tracemalloc.start()
    for _ in range(16 * LONGEST_LINE // len(chunk)):
        taken += sum(len(line) for line in splitter.feed(chunk))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken == 16 * LONGEST_LINE
    assert peak < 6 * LONGEST_LINE
