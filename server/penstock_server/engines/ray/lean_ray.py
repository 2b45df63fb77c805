"""A Ray without the processes that show it to people: its dashboard, the monitor of its autoscaler and that of its logs.

`ray.init` starts them even with `include_dashboard=False`, and waits for the first one. They take 3 s of CPU at each
start, and nobody asks them anything here: the study has its own logs, and its nodes do not come and go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private.node import Node

UNUSED = ("start_api_server", "start_log_monitor", "start_monitor")
"""Methods by which Ray starts these processes. A Ray that has other methods starts them as ever."""


@contextmanager
def without_unused_processes() -> Iterator[None]:
    """Keep `ray.init` from starting them."""
    before = {name: getattr(Node, name) for name in UNUSED if hasattr(Node, name)}

    def start_nothing(_node: Node, **_options: Any) -> None:
        pass

    for name in before:
        setattr(Node, name, start_nothing)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)
