"""libpenstock encodes and decodes the shared vectors."""

from __future__ import annotations

import subprocess
from pathlib import Path

from c_vectors import MESSAGES, RECEIVED, VECTORS


def test_the_shared_vectors_pass(programs: Path) -> None:
    done = subprocess.run([programs / "vectors"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    headers, payloads = len(MESSAGES), sum("payload" in m for m in MESSAGES)
    payloads += sum(i["kind"] in RECEIVED for i in VECTORS["invalid_payloads"])
    assert done.stdout.splitlines()[-1] == f"{headers} headers, {payloads} payloads, 0 failures"
