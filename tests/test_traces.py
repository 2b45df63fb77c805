"""What tests say of a study that has ended is seen, and only of that one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from penstock_server.engines.ray.leftovers import OWNER_FILE, PREFIX
from traces import MARK, SHARED_MEMORY, last_lines, left_over, shared_memory


def test_what_is_left_over_is_seen(tmp_path: Path) -> None:
    before = shared_memory()
    memory = SHARED_MEMORY / f"penstock-left-{os.getpid()}"
    ray = Path(f"/tmp/{PREFIX}left-{os.getpid()}")
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, MARK: str(tmp_path)}) as process:
        try:
            ray.mkdir()
            (ray / OWNER_FILE).write_text(str(tmp_path))
            memory.touch()
            left = left_over(str(tmp_path), tmp_path, before, patience=0.0)
            assert f"process {process.pid}: {Path(sys.executable).name} -c input()" in left
            assert {str(ray), str(memory)} < set(left)
            assert not any(str(process.pid) in line for line in left_over("another", tmp_path, before, patience=0.0))
        finally:
            (ray / OWNER_FILE).unlink()
            ray.rmdir()
            memory.unlink()
            process.kill()
    assert not any(str(process.pid) in line for line in left_over(str(tmp_path), tmp_path, before, patience=0.0))


def test_the_last_lines_of_logs(tmp_path: Path) -> None:
    for name, lines in (("empty", 0), ("worker", 3), ("server", 50)):
        (tmp_path / f"{name}.log").write_text("".join(f"{name} {number}\n" for number in range(lines)))
        os.utime(tmp_path / f"{name}.log", (lines, lines))
    worker, server = last_lines(tmp_path, 2).split(f"{tmp_path}/server.log:")
    assert worker.split() == [f"{tmp_path}/worker.log:", "worker", "1", "worker", "2"]
    assert server.split() == ["server", "48", "server", "49"]
