"""A Ray of our own starts none of the processes that only show it to people."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

pytest.importorskip("ray")

CODE = """
import logging, sys, psutil, ray
from penstock_server.engines.ray.lean_ray import UNUSED, without_unused_processes
from ray._private.node import Node
before = [getattr(Node, name) for name in UNUSED]
with without_unused_processes():
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL,
             _temp_dir=sys.argv[1])
commands = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
assert ray.get(ray.remote(lambda: 7).remote()) == 7
assert [getattr(Node, name) for name in UNUSED] == before
ray.shutdown()
print("raylet", any("/raylet " in command for command in commands))
for script in ("dashboard/dashboard.py", "_private/log_monitor.py", "_private/monitor.py"):
    print(script, any(script in command for command in commands))
"""


def test_a_ray_of_our_own_has_no_dashboard_and_no_monitors() -> None:
    with tempfile.TemporaryDirectory(prefix="pnsk-") as folder:  # short: Ray makes sockets in it
        done = subprocess.run(
            [sys.executable, "-c", CODE, folder],
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["True", "False", "False", "False"]
