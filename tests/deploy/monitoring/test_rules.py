"""Prometheus' own tool accepts its configuration and rules, and each alert fires of its cause."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

MONITORING = Path(__file__).parents[3] / "deploy" / "monitoring"
RULES = MONITORING / "rules" / "penstock.yml"
ALERTS = Path(__file__).with_name("alerts_test.yml")


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configuration_and_rules_are_accepted(tmp_path: Path) -> None:
    shutil.copytree(MONITORING, tmp_path / "monitoring")
    assert "SUCCESS" in promtool("check", "config", tmp_path / "monitoring" / "prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", RULES)


def test_each_alert_fires_of_its_cause_and_of_no_study_that_is_well() -> None:
    assert "SUCCESS" in promtool("test", "rules", ALERTS)
    names = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    assert names
    for name in names:  # once where the study is well, and with its cause
        assert len(re.findall(rf"alertname: {name}\b", ALERTS.read_text())) >= 2, name
