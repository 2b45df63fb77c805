"""One long study under a seeded schedule of faults: nothing lost, memory flat, nothing left behind.

    python tests/chaos/soak.py [--faults 1000] [--seconds 1500] [--seed 1]

Two local workers and two on another host (a network namespace) stream while faults come at random moments. When they are over, the study
is left to finish. Prints what was done and what came of it; `--results` also writes docs/results/chaos.json and the picture of memory.
Needs root and iproute2.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faults
from accounting import faults_of
from network_namespace import Cable, other_host
from rows import RESULTS, provenance, small_disk
from world import SERVER_TIMEOUT, World, world

DISK_MEGABYTES = 256
GAVE_UP = "workers in a row died"  # what the launcher says of workers that cannot live
MEMORY_SECONDS = 2.0  # between two looks at memory
FLAT = 1.15  # resident memory in the last quarter of the longest incarnation over that in its second, at most


@dataclass
class Soak:
    """A study, the cable to the host of its far workers, and what has been done to it."""

    study: World
    cable: Cable
    rng: random.Random
    done: list[dict[str, Any]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def cut_cable(self, _world: World, rng: random.Random) -> bool:
        self.cable.cut()
        time.sleep(rng.uniform(0.2, 6.0))  # shorter and longer than a client may be silent
        self.cable.mend()
        return True

    def kill_far_worker(self, world: World, rng: random.Random) -> bool:
        alive = [worker for worker in world.others if worker.poll() is None]
        if not alive:
            return False
        rng.choice(alive).kill()
        return True

    def kill_server(self, world: World, rng: random.Random) -> bool:
        return faults.kill_server(world, rng) and self._resume()

    def kill_server_and_truncate(self, world: World, rng: random.Random) -> bool:
        done = faults.kill_server(world, rng) and faults.truncate_checkpoint(world, rng)
        self._resume()
        return done

    def _resume(self) -> bool:
        self.study.resume()
        return True

    def weights(self) -> dict[Callable[[World, random.Random], bool], float]:
        """How often each fault comes: those that cost a restart of the server seldom, so that there is a study between them."""
        return {
            faults.kill_worker: 20,
            faults.nap_worker: 10,
            faults.freeze_worker: 3,
            self.kill_far_worker: 20,
            self.cut_cable: 8,
            faults.corrupt_frames: 20,
            faults.uninvited: 15,
            faults.nap_rank: 5,
            faults.fill_disk: 2,
            faults.kill_rank: 1.2,
            faults.kill_coordinator: 1.2,
            faults.kill_ray_head: 0.4,
            faults.kill_raylet: 0.4,
            self.kill_server: 0.8,
            self.kill_server_and_truncate: 0.4,
        }

    def one(self) -> None:
        """Do one fault, and see to it that there are workers on the other host."""
        weights = self.weights()
        ((chosen),) = self.rng.choices(list(weights), list(weights.values()))
        at = time.monotonic() - self.begun
        done = chosen(self.study, self.rng)
        self.done.append({"time": round(at, 2), "fault": chosen.__name__, "done": done})
        self.tend()

    def tend(self) -> None:
        """Two workers on the other host; a server that has ended by itself is resumed, and held against it."""
        process = self.study.process
        assert process is not None
        code = process.poll()
        if code not in (None, 0):
            written = self.study.out / "report.json"
            # A full disk can prevent report.json. The last message of penstock then has the reason.
            last = self.study.said().rpartition("\npenstock: ")[2]
            why = json.loads(written.read_text())["message"] if written.exists() else last
            if GAVE_UP in why:  # as it must where workers die faster than a simulation takes; an operator would go on
                self.gave_up.append(f"after {len(self.done)} faults: {why.partition(';')[0]}")
            else:
                self.wrong.append(f"penstock ended with {code} by itself after {len(self.done)} faults: {why}")
            self._resume()
        self.study.others = [worker for worker in self.study.others if worker.poll() is None]
        while len(self.study.others) < 2 and (self.study.out / "connect.json").exists():
            self.study.add_worker(through=self.cable.command)

    def watch_memory(self, over: threading.Event) -> None:
        while not over.wait(MEMORY_SECONDS):
            found = self.study.memory()
            if found:
                self.memory.append(
                    {"time": round(time.monotonic() - self.begun, 1), "pids": self.study.pids("rank"), **found}
                )


def growth(memory: list[dict[str, Any]]) -> dict[str, float]:
    """For each kind of process: its memory in the last quarter of the longest life of one server, over that in its second quarter."""
    lives: dict[int, list[dict[str, Any]]] = {}
    for look in memory:
        if len(look["pids"]) == 1:
            lives.setdefault(look["pids"][0], []).append(look)
    longest = max(lives.values(), key=len, default=[])
    quarter = len(longest) // 4
    if quarter < 3:
        return {}

    def mean(looks: list[dict[str, Any]], kind: str) -> float:
        return sum(look.get(kind, 0) for look in looks) / len(looks)

    return {
        kind: round(mean(longest[-quarter:], kind) / max(1.0, mean(longest[quarter : 2 * quarter], kind)), 3)
        for kind in ("rank", "coordinator")
    }


def run(
    folder: Path,
    number: int,
    seconds: float,
    seed: int,
    simulations: int,
    server_timeout: float = SERVER_TIMEOUT,
) -> dict[str, Any]:
    """Run the soak; returns what was done, what came of it, and what is wrong.

    Args:
        folder: where the study lives, its run directory on a small disk of its own.
        number: faults after which it is left alone.
        seconds: after which it is left alone at the latest.
        seed: of the faults and of the study.
        simulations: of the study.
        server_timeout: [server] server_timeout, in seconds.
    """
    # A worker that did not hear of the study's end waits so long for an answer, and as long again for another server.
    worker_seconds = 2 * server_timeout + 30.0
    over = threading.Event()
    with (
        other_host() as cable,
        small_disk(folder / "run", DISK_MEGABYTES),  # penstock.log stays outside
        world(folder, host=cable.here, simulations=simulations, seed=seed, server_timeout=server_timeout) as study,
    ):
        soak = Soak(study, cable, random.Random(seed))
        watching = threading.Thread(target=soak.watch_memory, args=(over,), daemon=True)
        watching.start()
        deadline = time.monotonic() + seconds
        while sum(one["done"] for one in soak.done) < number and time.monotonic() < deadline:
            assert study.process is not None
            if study.process.poll() == 0:
                break
            soak.one()
        faulty = time.monotonic() - soak.begun
        print(
            f"{sum(one['done'] for one in soak.done)} faults in {faulty:.0f} s; waiting for the study's end", flush=True
        )
        while study.process is not None and study.process.poll() != 0:
            time.sleep(1.0)
            soak.tend()
            if time.monotonic() - soak.begun > faulty + 900:
                soak.wrong.append("the study had not ended 900 s after the last fault")
                break
        over.set()
        watching.join()
        report = study.report()
        soak.wrong += faults_of(report)
        for worker in study.others:
            try:
                worker.wait(timeout=worker_seconds)
            except subprocess.TimeoutExpired:
                soak.wrong.append(f"worker {worker.pid} still runs {worker_seconds:.0f} s after the study's end")
    soak.wrong += soak.study.left_over()
    grown = growth(soak.memory)
    soak.wrong += [f"memory of the {kind} grew to {ratio} times" for kind, ratio in grown.items() if ratio > FLAT]
    return {
        "seed": seed,
        "faults": dict(Counter(one["fault"] for one in soak.done if one["done"])),
        "found_nothing_to_do": sum(not one["done"] for one in soak.done),
        "seconds_of_faults": round(faulty, 1),
        "wall_seconds": round(time.monotonic() - soak.begun, 1),
        "report": report,
        "memory_growth": grown,
        "memory": soak.memory,
        "schedule": soak.done,
        "gave_up": soak.gave_up,
        "wrong": soak.wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1500.0)
    parser.add_argument("--simulations", type=int, default=1700)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", action="store_true", help="write docs/results/chaos.json and the picture")
    arguments = parser.parse_args()
    made = provenance(f"python tests/chaos/soak.py --faults {arguments.faults} --seed {arguments.seed} --results")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        end = run(Path(folder), arguments.faults, arguments.seconds, arguments.seed, arguments.simulations)
    for name, times in sorted(end["faults"].items()):
        print(f"  {times:5d}  {name}")
    samples = end["report"]["samples"]
    print({name: samples[name] for name in ("expected", "unique", "trained_unique", "received", "duplicates_dropped")})
    print(f"incarnations: {end['report']['incarnations']}; memory, late over early: {end['memory_growth']}")
    print("\n".join(end["wrong"]) or "nothing lost, nothing left behind")
    if arguments.results:
        from picture import draw_memory

        (RESULTS / "chaos.json").write_text(
            json.dumps({**made, **{k: v for k, v in end.items() if k not in ("memory", "schedule")}}, indent=2) + "\n"
        )
        draw_memory(end["memory"], end["schedule"], RESULTS / "chaos_memory.png")
    sys.exit(bool(end["wrong"]))


if __name__ == "__main__":
    main()
