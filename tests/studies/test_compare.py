"""`penstock compare`, whole: recordings, offline and online runs, tables and a figure."""

import json
from pathlib import Path

import pytest
from command import penstock

STUDY = """
[study]
name = "small"
engine = "inline"

[parameters]
initial = [100.0, 500.0]
left = [100.0, 500.0]
right = [100.0, 500.0]
bottom = [100.0, 500.0]
top = [100.0, 500.0]

[solver]
adapter = "heat2d"
simulations = 40
validation_simulations = 2
options = { points = 8, steps = 10 }

[fields]
T = {}

[buffer]
capacity = 100
watermark = 10
presentations_per_sample = 2

[training]
batch_size = 5
threads = 1
validate_every = 20
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


@pytest.mark.slow
def test_every_variant_trains_as_many_batches_on_the_samples_it_should(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    penstock(
        "compare", study, "--stored", "3", "--factors", "1,2", "--seeds", "1,2", "--jobs", "2", "--out", out,
        "--set", "training.max_batches=40",
    )  # fmt: skip
    found = json.loads((out / "comparison.json").read_text())
    rows = found["rows"]
    assert [(r["variant"], r["seed"]) for r in rows] == [
        (variant, seed)
        for variant in ("offline x1", "offline x2", "online fifo", "online firo", "online reservoir")
        for seed in (1, 2)
    ]
    assert {r["batches"] for r in rows} == {40}
    assert {r["presentations"] for r in rows} == {200}
    by_variant = {r["variant"]: r for r in rows}
    # 3 simulations of 10 time steps of 64 float32 numbers.
    assert by_variant["offline x1"]["samples_unique"] == 30
    assert by_variant["offline x1"]["gigabytes"] == pytest.approx(30 * 256 / 1e9, abs=1e-6)
    assert by_variant["offline x2"]["samples_unique"] == 60
    assert by_variant["online fifo"]["samples_unique"] == 200
    assert 60 <= by_variant["online reservoir"]["samples_unique"] <= 130
    online = [r["validation_error"] for r in rows if r["variant"] == "online reservoir"]
    offline = [r["validation_error"] for r in rows if r["variant"] == "offline x1"]
    assert found["improvement"] == pytest.approx(1 - sum(online) / sum(offline))
    assert (out / "comparison.md").read_text().count("\n") == 2 + 5
    assert (out / "comparison.png").stat().st_size > 10_000
    assert sorted(p.name for p in out.iterdir()) == ["comparison.json", "comparison.md", "comparison.png"]


def test_a_study_without_an_end_in_batches_is_refused(study: Path, tmp_path: Path) -> None:
    said = penstock("compare", study, "--stored", "3", "--out", tmp_path / "out", code=1)
    assert "[training] max_batches is not set" in said
