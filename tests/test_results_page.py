"""docs/results.md says what the files in docs/results hold, and these hold what they promise."""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


def test_the_page_is_what_the_files_make_of_it() -> None:
    command = [sys.executable, ROOT / "benchmarks" / "results_page.py", "--print"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert (ROOT / "docs" / "results.md").read_text() == printed, (
        "write it again with python benchmarks/results_page.py"
    )


def test_every_picture_of_the_page_is_there() -> None:
    pictures = re.findall(r"\]\((results/[^)]+)\)", (ROOT / "docs" / "results.md").read_text())
    assert pictures
    assert [p for p in pictures if not (ROOT / "docs" / p).is_file()] == []


def test_improvements_follow_from_the_rows() -> None:
    found = json.loads((RESULTS / "online_vs_offline.json").read_text())
    for model, improvement in found["improvement"].items():
        offline, online = (
            [r for r in found["rows"] if r["model"] == model and r["source"] == source]
            for source in ("offline", "online")
        )
        assert {r["seed"] for r in offline} == {r["seed"] for r in online}
        assert {r["batches"] for r in offline} == {r["batches"] for r in online}
        means = [mean(r["validation_error"] for r in rows) for rows in (online, offline)]
        assert improvement == pytest.approx(1 - means[0] / means[1])
        assert all(r["samples_unique"] <= r["presentations"] for r in offline + online)


def test_the_laptop_protocol_has_a_row_for_each_policy_and_seed() -> None:
    rows = json.loads((RESULTS / "laptop_protocol.json").read_text())["rows"]
    seeds = {r["seed"] for r in rows}
    assert {(r["policy"], r["seed"]) for r in rows} == {
        (policy, seed) for policy in ("offline", "fifo", "firo", "reservoir") for seed in seeds
    }
    assert {r["batches"] for r in rows if r["policy"] != "reservoir"} == {1000}
