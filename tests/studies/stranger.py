"""What another user of the machine tries against a study: reading, joining, stopping. Prints what came of it, as JSON.

python stranger.py USER FOLDER...: the numeric id of the study's user, and folders that are that user's alone.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SHARED = ("/tmp", "/var/tmp", "/dev/shm")  # folders that everybody may write


def processes_of(user: int) -> Iterator[Path]:
    """The processes of a user, in /proc."""
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and process.stat().st_uid == user:
                yield process
        except FileNotFoundError:
            continue


def tried(act: Callable[[], object]) -> str:
    """What an act came to: the name of its error, or "done"."""
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "done"


def readable_below(top: Path) -> Iterator[tuple[Path, bytes]]:
    """The files that may be read at or below a path, with their first bytes; links are not followed."""
    inside = [Path(folder, name) for folder, _, names in os.walk(top) for name in names]
    for path in inside or [top]:
        try:
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    yield path, file.read(2**20)
        except OSError:
            continue


def secrets_of(user: int) -> dict[str, str]:
    """All that can be read of a user's processes and files, but command lines, by path and in base64."""
    found: dict[str, str] = {}
    for process in processes_of(user):
        for name in ("environ", "maps", "io", "fd", "cwd"):
            path = process / name
            try:
                content = path.read_bytes() if path.is_file() else str(list(path.iterdir())).encode()
            except OSError:
                continue
            found[str(path)] = base64.b64encode(content).decode()
    for top in SHARED:
        for entry in Path(top).iterdir():
            try:
                owned = entry.lstat().st_uid == user
            except FileNotFoundError:
                continue
            for path, content in readable_below(entry) if owned else ():
                found[str(path)] = base64.b64encode(content).decode()
    return found


def joined(address: str) -> str:
    """What Ray says to somebody without its token."""
    import ray

    try:
        ray.init(address=address, logging_level=logging.CRITICAL)
    except Exception as error:
        return f"refused: {error}"
    return "let in"


def main(user: int, folders: list[Path]) -> dict[str, Any]:
    """Try everything, the harmful last."""
    commands = {
        int(process.name): (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        for process in processes_of(user)
    }
    addresses = sorted(
        {found[1] for text in commands.values() if (found := re.search(r"--gcs-address[= ](\S+)", text))}
    )
    return {
        "commands": commands,
        "secrets": secrets_of(user),
        "listed": {str(folder): tried(lambda folder=folder: list(folder.iterdir())) for folder in folders},
        "written": {str(folder): tried((folder / "stranger").touch) for folder in folders},
        "ray": {address: joined(address) for address in addresses},
        "killed": {pid: tried(lambda pid=pid: os.kill(pid, signal.SIGKILL)) for pid in commands},
        "ray_stop": subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "stop", "--force"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), [Path(word) for word in sys.argv[2:]])))
