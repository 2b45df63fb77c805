"""A Ray that starts too slowly is started again; the message about a Ray that cannot be joined names the cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("ray")

from penstock_server.engines.ray import local_ray
from penstock_server.engines.ray.connection import cause_of
from penstock_server.engines.ray.ray_cluster import RayFailed
from penstock_server.study import Study

REFUSED = """Initialization failure from server:
Traceback (most recent call last):
  File "/usr/lib/ray/util/client/server/proxier.py", line 707, in Datapath
    raise RuntimeError(
RuntimeError: Version mismatch: the cluster has Python 3.10
and this process Python 3.12
"""


def test_the_cause_at_the_end_of_a_traceback_is_shown() -> None:
    said = cause_of(ConnectionError(REFUSED))
    assert said == "Initialization failure from server: RuntimeError: Version mismatch: the cluster has Python 3.10"
    assert cause_of(OSError("Connection refused")) == "Connection refused"


@pytest.mark.parametrize(("text", "starts"), [("The current node timed out during startup.", 2), ("no room", 1)])
def test_a_ray_that_was_too_slow_is_started_once_more(
    heat_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, starts: int
) -> None:
    begun = []

    def fail(*_: object) -> None:
        begun.append(1)
        raise ConnectionError(text)

    monkeypatch.setattr(local_ray, "_init", fail)
    with pytest.raises(RayFailed, match=text):
        local_ray.start_local_ray(heat_study(), tmp_path, {})
    assert len(begun) == starts
