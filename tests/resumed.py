"""Holding a study that was stopped and resumed against one that never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from penstock_server.checkpoint import load_latest
from penstock_server.study import Study


def with_training(study: Study, **changes: Any) -> Study:
    """Not validated: where it stops is below `min_batches` too."""
    return study.model_copy(update={"training": study.training.model_copy(update=changes)})


def parts(directory: Path) -> dict[str, Any]:
    return dict(load_latest(directory / "checkpoints").parts)


def accounting(report: dict[str, Any]) -> dict[str, Any]:
    """What must not differ: all but times, checkpoints and the number of incarnations."""
    left_out = ("wall_seconds", "incarnations", "checkpoint", "outages")
    out = {k: v for k, v in report.items() if k not in left_out}
    out["training"] = {k: v for k, v in report["training"].items() if k not in ("samples_per_second", "stall_fraction")}
    out["clients"] = report["clients"]["bytes_received"]
    return out


def assert_same(directory: Path, reference: Path) -> None:
    """Weights, optimizer, scheduler, random states, normalisation and held-out samples, bit for bit."""
    for part in set(parts(reference)) & {"trainer", "normaliser", "ledger", "validation"}:
        assert_equal(parts(directory)[part], parts(reference)[part], part)


def assert_equal(here: Any, there: Any, place: str) -> None:
    if isinstance(there, dict):
        assert here.keys() == there.keys(), place
        for key in there:
            assert_equal(here[key], there[key], f"{place}.{key}")
    elif isinstance(there, list | tuple):
        assert len(here) == len(there), place
        for i, (a, b) in enumerate(zip(here, there, strict=True)):
            assert_equal(a, b, f"{place}.{i}")
    elif isinstance(there, torch.Tensor):
        if place.startswith("validation.") and there.is_floating_point():
            return  # blocks that are not full: the rest is whatever memory held
        assert torch.equal(here, there), place
    elif isinstance(there, np.ndarray):
        assert np.array_equal(here, there), place
    else:
        assert here == there, place
