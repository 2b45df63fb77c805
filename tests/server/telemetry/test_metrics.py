"""The metrics of a server process, and their page in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import generate_latest

from penstock_client.reasons import Reason
from penstock_server.telemetry import Metrics

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_names_every_metric_with_its_kind() -> None:
    exposed = dict(
        re.findall(r"# TYPE (penstock_\w+) (\w+)", generate_latest(Metrics("rank-0", "s").registry).decode())
    )
    kinds = {name: kind for name, kind in exposed.items() if not name.endswith("_created")}
    documented = dict(re.findall(r"^\| `(penstock_\w+)` \| (\w+) \|", PAGE.read_text(), flags=re.MULTILINE))
    assert documented == kinds


def test_refusals_are_exposed_as_zero_before_the_first() -> None:
    metrics = Metrics("rank-0", "s")
    labels = {"study": "s", "process": "rank-0"}
    for reason in Reason:
        value = metrics.registry.get_sample_value("penstock_refused_total", {**labels, "reason": reason.name.lower()})
        assert value == 0
    assert metrics.refusals() == metrics.handshakes_refused() == {}
    metrics.refused(Reason.DTYPE, 2)
    metrics.handshake_refused("protocol")
    assert (metrics.refusals(), metrics.handshakes_refused()) == ({"dtype": 2}, {"protocol": 1})
