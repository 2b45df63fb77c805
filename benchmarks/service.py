"""Ask `penstock serve` 10,000 times from 8 clients at once: latency, requests per second, speed-up against the solver.

    python benchmarks/service.py [RUN] [--requests 10000] [--clients 8] [--out FILE.json]

RUN is a run directory of examples/heat; without it a short study is trained first. Each request asks for the last time
step at a random point of the parameter space, once as JSON and once as numpy arrays. The solver is timed in between, on
the same machine, alone: what it needs to reach this time step.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
from provenance import ROOT, provenance

from penstock_server.study import SolverSection
from penstock_server.telemetry import strict_json
from penstock_solvers import make_solver

STUDY = ROOT / "examples" / "heat" / "study.toml"
TYPES = {"json": "application/json", "arrays": "application/x-npz"}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--requests", type=int, default=10_000, help="of each type of answer")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    made = provenance("python benchmarks/service.py")
    with tempfile.TemporaryDirectory(prefix="penstock-service-") as folder:
        run = arguments.run or _train(Path(folder) / "run")
        card = json.loads((run / "model" / "card.json").read_text())
        bounds = {name: entry["bounds"] for name, entry in card["parameters"].items()}
        figures: dict[str, Any] = {}
        with _served(run) as (port, process):
            for name, kind in TYPES.items():
                figures[name] = _ask(port, process, bounds, kind, arguments.requests, arguments.clients)
                print(f"{name}: {strict_json(figures[name])}", flush=True)
    solver, solver_cpu = _time_solver(run, bounds)
    for name in TYPES:
        figures[name]["speed_up"] = solver / figures[name]["p50_seconds"]
        figures[name]["throughput_against_solver"] = solver * figures[name]["requests_per_second"]
        figures[name]["cpu_against_solver"] = solver_cpu / figures[name]["cpu_seconds_per_request"]
        print(
            f"{name}: {arguments.clients} clients, {figures[name]['requests']} requests, {figures[name]['errors']} errors; "
            f"p50 {1e3 * figures[name]['p50_seconds']:.2f} ms, p99 {1e3 * figures[name]['p99_seconds']:.2f} ms, "
            f"{figures[name]['requests_per_second']:.0f} requests/s; solver {1e3 * solver:.1f} ms: "
            f"an answer is {figures[name]['speed_up']:.1f} times faster, all together "
            f"{figures[name]['throughput_against_solver']:.1f} times; CPU time "
            f"{1e3 * figures[name]['cpu_seconds_per_request']:.2f} ms a request, {1e3 * solver_cpu:.2f} ms the solver"
        )
    if arguments.out is not None:
        content = {
            **made,
            "clients": arguments.clients,
            "solver_seconds": solver,
            "solver_cpu_seconds": solver_cpu,
            **figures,
        }
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    if any(figures[name]["errors"] for name in TYPES):
        sys.exit(1)


def _train(run: Path) -> Path:
    command = [sys.executable, "-m", "penstock.main", "run", str(STUDY), "--out", str(run)]
    settings = ["--set", "study.engine=inline", "--set", "solver.simulations=30"]
    subprocess.run([*command, *settings], check=True, stdout=subprocess.DEVNULL)
    return run


@contextmanager
def _served(run: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A running `penstock serve`; yields its port and process, and expects a clean end."""
    command = [sys.executable, "-m", "penstock.main", "serve", str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found
        yield int(found[1]), psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def _ask(
    port: int, process: psutil.Process, bounds: dict[str, tuple[float, float]], kind: str, number: int, clients: int
) -> dict[str, Any]:
    """Ask from several connections at once, each waiting for its answer before it asks again."""
    seconds: list[list[float]] = [[] for _ in range(clients)]
    errors = [0] * clients

    def client(place: int) -> None:
        rng = random.Random(place)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Content-Type": "application/json", "Accept": kind}
        for _ in range(number // clients):
            body = json.dumps({"parameters": {name: rng.uniform(*range_) for name, range_ in bounds.items()}})
            begun = time.perf_counter()
            connection.request("POST", "/predict", body, headers)
            answer = connection.getresponse()
            content = answer.read()
            seconds[place].append(time.perf_counter() - begun)
            errors[place] += answer.status != 200 or answer.headers["Content-Type"] != kind or not content
        connection.close()

    threads = [threading.Thread(target=client, args=(place,)) for place in range(clients)]
    begun, cpu = time.perf_counter(), sum(process.cpu_times()[:2])
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begun
    everything = [value for own in seconds for value in own]
    return {
        "requests": len(everything),
        "errors": sum(errors) + (number // clients) * clients - len(everything),
        "p50_seconds": median(everything),
        "p99_seconds": quantiles(everything, n=100)[98],
        "requests_per_second": len(everything) / wall,
        "cpu_seconds_per_request": (sum(process.cpu_times()[:2]) - cpu) / len(everything),
    }


def _time_solver(run: Path, bounds: dict[str, tuple[float, float]]) -> tuple[float, float]:
    """Median time of a whole simulation of the study's solver, up to its last time step: wall and CPU seconds."""
    section = SolverSection.model_validate(tomllib.loads((run / "study.toml").read_text())["solver"])
    solver = make_solver(section.adapter or "", section.options)
    rng = random.Random(0)
    times = []
    for _ in range(20):
        point = {name: rng.uniform(*range_) for name, range_ in bounds.items()}
        begun, cpu = time.perf_counter(), time.process_time()
        for _ in solver.run(point):
            pass
        times.append((time.perf_counter() - begun, time.process_time() - cpu))
    wall, cpu = zip(*times, strict=True)
    return median(wall), median(cpu)


if __name__ == "__main__":
    main()
