"""docker/ on a real engine: whole studies of containers that are killed, stopped and continued. `make docker-test` runs it."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from engine import Compose, docker, lines_in, state, text_in

from waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.timeout(3600)]

GIGABYTE = 10**9
USER = "1000"
SIMULATIONS = 42  # held-out ones included
RUN = "/runs/cavity"


@pytest.fixture(autouse=True)
def logs(compose: Compose, request: pytest.FixtureRequest) -> Iterator[None]:
    """With a failure, the last lines of all containers."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(compose("logs", "--no-color", "--tail", "60", check=False))


def events(server: str, name: str) -> list[dict[str, Any]]:
    return [event for event in lines_in(server, f"{RUN}/events.jsonl") if event["event"] == name]


def finished(server: str) -> int:
    return len(events(server, "finished"))


def after(server: str, more: int) -> None:
    """Wait until so many more simulations have finished, which leaves some to do."""
    there = finished(server)
    wait_for(lambda: finished(server) >= there + more)
    assert finished(server) < SIMULATIONS - 4, "the study is too short for this test"


def healthy(container: str) -> bool:
    return state(container)["Health"]["Status"] == "healthy"


def ended(container: str) -> bool:
    return state(container)["Status"] == "exited"


def report(container: str, run: str = RUN) -> dict[str, Any]:
    return json.loads(text_in(container, f"{run}/report.json"))


def accounted(container: str, run: str = RUN, simulations: int = SIMULATIONS) -> dict[str, Any]:
    """The report of a study that has lost nothing."""
    found = report(container, run)
    assert found["status"] == "finished", found["message"]
    assert found["simulations"]["finished"] == simulations
    samples = found["samples"]
    assert samples["expected"] == samples["unique"] == samples["trained_unique"] > 0
    return found


def asked_prometheus(compose: Compose, query: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{compose.environment['PROMETHEUS_PORT']}/api/v1/query?query={query}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.loads(answer.read())["data"]["result"]


def test_the_images_are_small_enough(compose: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {
        name: int(docker("image", "inspect", "--format", "{{.Size}}", f"penstock-{name}"))
        for name in ("client", "server")
    }
    with capsys.disabled():
        print(f"\nimages: client {sizes['client'] / 1e6:.0f} MB, server {sizes['server'] / 1e6:.0f} MB")
    assert sizes["client"] < GIGABYTE
    packages = docker("run", "--rm", "penstock-client", "pip", "list", "--format", "freeze").lower()
    assert "numpy==" in packages
    assert "torch==" not in packages


def test_containers_that_are_killed_stopped_and_continued_finish_the_study(compose: Compose) -> None:
    compose("up", "--detach", "--scale", "worker=2", "server", "worker", "prometheus")
    [server], workers = compose.containers("server"), compose.containers("worker")
    assert len(workers) == 2

    # Healthy, without root, each worker with a key of its own, and Prometheus sees them.
    wait_for(lambda: all(healthy(container) for container in (server, *workers)))
    for container in (server, *workers):
        assert docker("exec", container, "id", "-u") == USER
        processes = docker("top", container, "-eo", "pid,uid").splitlines()[1:]
        assert {line.split()[1] for line in processes} == {USER}
    after(server, 1)
    wait_for(lambda: asked_prometheus(compose, 'penstock_simulations{study="cavity"}'))
    clients = events(server, "client")
    assert {client["host"] for client in clients} == {worker[:12] for worker in workers}
    assert len({client["worker"] for client in clients}) == 2

    # A worker's container is killed, and brought back.
    docker("kill", workers[0])
    wait_for(lambda: events(server, "client_lost"))
    after(server, 2)
    compose("up", "--detach", "--scale", "worker=2", "server", "worker")
    wait_for(lambda: healthy(workers[0]))

    # The server's container is killed, and brought back.
    docker("kill", server)
    wait_for(lambda: ended(server))
    compose("start", "server")
    after(server, 2)

    # Both are killed from outside, as the kernel does where memory is short: the engine starts them again.
    for container in (server, workers[1]):
        os.kill(state(container)["Pid"], signal.SIGKILL)
    after(server, 2)

    # Stopped, and continued.
    compose("stop")
    assert report(server)["status"] == "stopped"
    stopped_at = finished(server)
    compose("start", "server", "worker")
    wait_for(lambda: finished(server) > stopped_at)

    for container in (server, *workers):
        wait_for(lambda container=container: ended(container), 2 * PATIENCE)
        assert state(container)["ExitCode"] == 0, docker("logs", "--tail", "30", container)
    found = accounted(server)
    assert found["incarnations"] == 4
    wait_for(lambda: not text_in(server, "/targets/cavity.json"))

    # Once more: there is nothing left to do. Commands of penstock find the results.
    compose("up", "--detach", "--scale", "worker=2", "server", "worker")
    for container in (server, *workers):
        wait_for(lambda container=container: ended(container))
        assert state(container)["ExitCode"] == 0, docker("logs", "--tail", "30", container)
    assert "cavity: finished" in compose("run", "--rm", "--no-deps", "-T", "server", "penstock", "report", RUN)


def test_another_study_by_an_environment_variable(compose: Compose) -> None:
    few = "solver.simulations=6 solver.validation_simulations=1 training.threads=1 server.client_timeout=6"
    compose("up", "--detach", "--scale", "worker=2", "server", "worker", STUDY="heat", OVERRIDES=few)
    [server] = compose.containers("server")
    wait_for(lambda: ended(server), 2 * PATIENCE)
    assert state(server)["ExitCode"] == 0, docker("logs", "--tail", "30", server)
    accounted(server, "/runs/heat", 7)


def test_a_worker_that_does_not_answer_is_unhealthy(compose: Compose) -> None:
    compose("up", "--detach", "--scale", "worker=1", "server", "worker")
    [worker] = compose.containers("worker")
    wait_for(lambda: healthy(worker))
    said = json.loads(state(worker)["Health"]["Log"][-1]["Output"])
    assert said["well"] is True
    docker("exec", worker, "sh", "-c", "kill -STOP $(cat /proc/1/task/1/children)")
    check = ["exec", worker, "python3", "/opt/penstock/bin/healthy.py", "worker"]
    assert "no answer" in docker(*check, check=False)
    docker("exec", worker, "sh", "-c", "kill -CONT $(cat /proc/1/task/1/children)")
    wait_for(lambda: json.loads(docker(*check))["well"])
