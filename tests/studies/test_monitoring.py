"""A real Prometheus with the shipped configuration: every expression has data, and these agree with the report."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, events, report, started
from paced_study import HELD_OUT, SIMULATIONS, write_study
from running_ray import free_port

from waiting import PATIENCE, busy, wait_for

pytestmark = pytest.mark.slow

MONITORING = ROOT / "deploy" / "monitoring"
STUDY = "paced"


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that runs.

    Attributes:
        address: host:port of its HTTP interface.
    """

    address: str

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The data of an answer, {} as long as it has not started; a refused request fails the test."""
        url = f"http://{self.address}/api/v1/{path}?" + urllib.parse.urlencode(query)
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it starts
                return {}
            raise AssertionError(f"{query}: {error.read().decode()}") from error
        except OSError:
            return {}

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The result of an expression."""
        found: list[dict[str, Any]] = self.get("query", query=expression).get("result", [])
        return found

    def value(self, expression: str) -> float:
        """The one number of an expression; NaN where there is none."""
        found = self.ask(expression)
        return float(found[0]["value"][1]) if found else float("nan")

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {r["metric"]["alertname"] for r in self.ask('ALERTS{alertstate="firing"}')}


@contextmanager
def prometheus(folder: Path, out: Path) -> Iterator[Prometheus]:
    """Prometheus with the configuration of deploy/monitoring, which finds the study of the run directory `out`."""
    shutil.copytree(MONITORING, folder)
    (folder / "runs" / "targets").mkdir(parents=True)
    (folder / "runs" / "targets" / f"{STUDY}.json").symlink_to(out / "targets.json")
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", f"--web.listen-address={address}"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait()


def silent_expressions(server: Prometheus) -> dict[str, str]:
    """Those expressions of dashboards and recording rules that have no data, by their place."""
    expressions = {}
    for path in (MONITORING / "grafana" / "dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                place = f"{path.name}, {panel['title']}, {target['refId']}"
                expressions[place] = target["expr"].replace("$study", STUDY)
    for group in server.get("rules", type="record")["groups"]:
        expressions |= {rule["name"]: rule["query"] for rule in group["rules"]}
    return {place: expression for place, expression in expressions.items() if not server.ask(expression)}


def test_every_expression_has_data_that_agree_with_the_report(tmp_path: Path) -> None:
    study = write_study(
        tmp_path,
        training={"min_batches": 100_000_000, "validate_every": 100},
        retries=0,
        # Slow enough that messages are refused after Prometheus has started: it counts from its first reading on.
        options={"points": 16, "steps": 25, "pause": 0.03, "diverges_above": 420.0},
    )
    out = tmp_path / "run"
    process = started("run", study, "--out", out)
    with prometheus(tmp_path / "monitoring", out) as server:
        ended = 'sum(penstock:simulations{state=~"finished|failed"})'
        wait_for(lambda: server.value(ended) == SIMULATIONS + HELD_OUT)
        # A rate needs two samples, an alert an evaluation after its cause.
        wait_for(lambda: server.value("min(penstock:batches:rate1m)") > 0 and server.firing())
        waited = time.monotonic() + 60 * busy()
        while silent := silent_expressions(server):
            assert time.monotonic() < waited, f"no data: {silent}"
            time.sleep(1)
        # Coordinator and rank are scraped one after the other: what is compared below must have come after the end.
        now = time.time()
        wait_for(lambda: server.value("min(timestamp(penstock_samples_received_total))") > now)
        # A NaN is refused, and fails its simulation.
        assert server.firing() == {"PenstockSimulationsFail", "PenstockMessagesRefused"}
        scraped = {
            name: server.value(expression)
            for name, expression in {
                "up": 'sum(up{study="paced"})',
                "received": "sum(penstock_samples_received_total)",
                "refused": 'sum(penstock_refused_total{reason="not_finite"})',
                "bytes": "sum(penstock_received_bytes_total)",
                "failed": 'sum(penstock:simulations{state="failed"})',
                "finished": 'sum(penstock:simulations{state="finished"})',
                "batches": "sum(penstock_batches_total)",
                "remaining": "sum(penstock_production_remaining_seconds)",
                "incarnation": "max(penstock_incarnation)",
                "steps_timed": "sum(penstock_batch_seconds_count)",
            }.items()
        }
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        done = report(out)
        assert scraped["up"] == 2
        assert scraped["received"] == done["samples"]["received"]
        assert (scraped["failed"], scraped["finished"]) == (
            done["simulations"]["failed"],
            done["simulations"]["finished"],
        )
        assert scraped["refused"] == done["samples"]["rejected"] > 0
        assert scraped["failed"] > 0.1 * SIMULATIONS
        assert (scraped["remaining"], scraped["incarnation"]) == (0, 1)
        assert 0 < scraped["batches"] <= done["training"]["batches"]
        assert 0 < scraped["bytes"] <= done["samples"]["received"] * 16 * 16 * 4 + 10**6
        assert abs(scraped["steps_timed"] - scraped["batches"]) <= 0.5 * scraped["batches"]

        process = started("resume", out)
        wait_for(lambda: len(events(out, "started")) == 2)
        wait_for(lambda: "PenstockServerRestarted" in server.firing())
        assert server.value("max(penstock_incarnation)") == 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
