"""Lines that several writers append, that a killed writer tears, and that a full disk refuses."""

import threading
from pathlib import Path

from penstock_server.telemetry import LineFile, read_lines


def test_lines_of_several_writers_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert list(read_lines(path)) == []

    def write(writer: int) -> None:
        file = LineFile(path)
        for number in range(50):
            file.append(f'{{"writer": {writer}, "number": {number}, "text": "{"x" * 500}"}}')

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = list(read_lines(path))
    assert len(lines) == 200
    for writer in range(4):
        assert [line["number"] for line in lines if line["writer"] == writer] == list(range(50))


def test_half_a_line_is_cut_off_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for torn in ('{"a": 1}\n{"b": ', "x" * 10_000, ""):
        path.write_text(torn)
        whole = list(read_lines(path))
        LineFile(path).append('{"c": 3}')
        assert list(read_lines(path)) == [*whole, {"c": 3}]
        assert path.read_text().count("\n") == len(whole) + 1
