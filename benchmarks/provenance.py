"""Record which commit and which machine made a figure."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


def provenance(command: str) -> dict[str, Any]:
    """Return commit, date, machine, versions and command, for a results file.

    Args:
        command: the command that made the results.

    Returns:
        The entries; `commit` ends with "+" if there are uncommitted changes.
    """

    def git(*arguments: str) -> str:
        if "PENSTOCK_COMMIT" in os.environ:  # the files are a copy without git
            return os.environ["PENSTOCK_COMMIT"] if "HEAD" in arguments else ""
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    # Results that a run has just rewritten are no changes of the measured code.
    changed = git("status", "--porcelain", "--", ".", ":!docs/results", ":!docs/results.md", ":!docs/performance.md")
    return {
        "command": command,
        "commit": git("rev-parse", "--short=12", "HEAD") + ("+" if changed else ""),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {_gibibytes():.0f} GiB",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _gibibytes() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
