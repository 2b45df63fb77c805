"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from command import end_what_was_started
from hypothesis import HealthCheck, settings
from slurm_cluster import why_not

from arrangement import Groups, arrange
from lacking import lacking
from penstock_server.study import Study
from traces import last_lines

# A machine that is busy with other tests draws examples slowly.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

HEAT_PARAMETERS = ("initial", "left", "right", "bottom", "top")


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the tables of `changes` laid over it; None takes a key out."""
    out = dict(base)
    for key, value in changes.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Arrange the tests of a parallel run; skip those of OpenFOAM, Slurm and a browser where these are not installed.

    With PENSTOCK_REQUIRE_ALL none of these is skipped, so that what is not installed is a failure. Tests of a GPU are
    skipped where torch finds none, and with PENSTOCK_REQUIRE_GPU fail there.
    """
    if hasattr(config, "workerinput"):  # one of several processes
        arrange(items)
    of_gpu = [item for item in items if "gpu" in item.keywords]
    if of_gpu and not torch.cuda.is_available() and not os.environ.get("PENSTOCK_REQUIRE_GPU"):
        for item in of_gpu:
            item.add_marker(pytest.mark.skip(reason="torch finds no GPU: benchmarks/gpu/run.sh runs it on one"))
    if os.environ.get("PENSTOCK_REQUIRE_ALL"):
        return
    openfoam = (
        "" if shutil.which("icoFoam") else "icoFoam is not on the PATH (apt-get install openfoam openfoam-examples)"
    )
    browser = "" if shutil.which("chromium") else "chromium is not on the PATH (apt-get install chromium)"
    for marker, reason in (("openfoam", openfoam), ("slurm", why_not()), ("browser", browser)):
        for item in items:
            if reason and marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Deal out the tests by their groups."""
    return Groups(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With a failure, the logs of the studies below the test's folder."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and folder is not None and (logs := last_lines(folder)):
        report.sections.append(("Logs of its studies", logs))
    return report


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """A study that a failed test has started would take the cores from all others."""
    yield
    end_what_was_started()


@pytest.fixture
def root_and_iproute2() -> None:
    """Root and iproute2, for network namespaces and small file systems; where everything is required, their lack is a failure."""
    if os.geteuid() == 0 and shutil.which("ip"):
        return
    lacking("needs root and iproute2 (apt-get install iproute2), for network namespaces and small file systems")


@pytest.fixture
def heat_study() -> Callable[..., Study]:
    """A small study of the heat equation; keyword arguments are tables laid over it."""

    def make(**changes: Any) -> Study:
        base = {
            "study": {"name": "heat", "seed": 3, "engine": "inline"},
            "parameters": {"sampler": "sobol", **{name: [100.0, 500.0] for name in HEAT_PARAMETERS}},
            "solver": {
                "adapter": "heat2d",
                "simulations": 6,
                "validation_simulations": 2,
                "concurrency": 2,
                "options": {"points": 12, "steps": 15},
            },
            "fields": {"T": {}},
            "buffer": {"capacity": 40, "watermark": 10},
            "training": {"batch_size": 5, "validate_every": 20, "device": "cpu"},
        }
        return Study.model_validate(merged(base, changes))

    return make
