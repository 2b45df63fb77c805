"""Whole studies on a Ray that runs already (`--ray-address`): it is there afterwards as it was before. A real cluster, real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import events, penstock, report, running
from paced_study import accounted, write_study
from running_ray import RunningRay, be_user, free_port, give_token, running_ray

from waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CORES = 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of a user who has a Ray token; the user of test_several_nodes.py has none."""
    home = tmp_path_factory.mktemp("home")
    give_token(home)
    return home


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[RunningRay]:
    with running_ray(CORES, home) as ray:
        yield ray


@pytest.fixture(autouse=True)
def as_that_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_user(home, monkeypatch)


def server_pids(out: Path) -> list[int]:
    begun = events(out, "started")[-1]
    return [begun["pid"], *begun["ranks"]]


def test_a_study_on_a_running_ray_whose_coordinator_dies(cluster: RunningRay, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with running("run", write_study(tmp_path, concurrency=2), "--out", out, "--ray-address", cluster.address) as study:
        wait_for(lambda: len(events(out, "checkpoint")) > 1)
        assert len(cluster.actors()) == 2
        os.kill(server_pids(out)[0], signal.SIGKILL)
        printed, _ = study.communicate(timeout=PATIENCE)
    assert study.returncode == 0, printed
    assert accounted(out)["incarnations"] == 2
    assert [event["kind"] for event in events(out, "restarted")] == ["coordinator"]
    cluster.as_before()
    assert not (out / ".ray").exists()


def test_a_killed_study_leaves_its_place_and_goes_on_in_another(cluster: RunningRay, tmp_path: Path) -> None:
    """Through a Ray Client server, and then without."""
    out = tmp_path / "run"
    with running("run", write_study(tmp_path, concurrency=2), "--out", out, "--ray-address", cluster.client()) as study:
        wait_for(lambda: len(events(out, "checkpoint")) > 1)
        study.kill()
    penstock("resume", out, "--ray-address", cluster.address)
    assert accounted(out)["incarnations"] == 2
    cluster.as_before()


def test_ctrl_c_says_how_to_go_on(cluster: RunningRay, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with running("run", write_study(tmp_path), "--out", out, "--ray-address", cluster.address) as study:
        wait_for(lambda: events(out, "finished"))
        study.send_signal(signal.SIGINT)
        printed, _ = study.communicate(timeout=PATIENCE)
    assert f"continue it with: penstock resume {out} --ray-address {cluster.address}" in printed
    assert report(out)["status"] == "stopped"
    cluster.as_before()


def test_what_a_cluster_cannot_give_is_named(cluster: RunningRay, tmp_path: Path) -> None:
    """Asked in a process of its own."""
    (tmp_path / "keys.json").write_text("{}")
    ask = (
        "import sys; from pathlib import Path; from penstock.study.file import load_study; "
        "from penstock_server.engines.ray.joined_ray import join_ray; "
        "join_ray(sys.argv[1], load_study(sys.argv[2]), Path(sys.argv[3]), {}, threads=9, log=print)"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, cluster.address, write_study(tmp_path, timeouts={"start": "4 s"}), tmp_path],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "RAY_AUTH_MODE": "token"},
    )
    assert "waiting up to 4 s for the Ray cluster to give 10 CPU on one node" in done.stdout
    assert (
        f"--ray-address {cluster.address}: the Ray cluster has not given 10 CPU on one node (the one that [server] host = "
        f'"127.0.0.1" names) within 4 s; its nodes: {cluster.node()} has 4 CPU; free in all: 4 CPU.'
    ) in done.stderr
    cluster.as_before()


def test_nobody_there_and_addresses_that_its_nodes_do_not_have(cluster: RunningRay, tmp_path: Path) -> None:
    study = write_study(tmp_path)
    nobody = f"127.0.0.1:{free_port()}"
    said = penstock("run", study, "--out", tmp_path / "a", "--ray-address", nobody, code=1)
    assert f"--ray-address {nobody}: no Ray answers there" in said
    said = penstock(
        *("run", study, "--out", tmp_path / "b", "--ray-address", cluster.address, "--set", "server.host=198.51.100.7"),
        code=1,
    )
    assert '[server] host = "198.51.100.7": the Ray node ' + cluster.node() + " cannot listen there" in said
    assert f'set host = "{cluster.node()}"' in said
    cluster.as_before()
