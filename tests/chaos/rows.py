"""One fault, one outcome: the table of docs/reliability.md, each row a real study that something is done to.

    python tests/chaos/rows.py [--only client_killed ...]

A row passes when the study has finished, every sample is accounted for exactly once, and the held-out error is no worse than the worst of
the undisturbed studies by more than half of it. Needs root (network namespaces, small file systems) and iproute2.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import faults
import rows_of_clients
import rows_of_servers
from accounting import ended
from network_namespace import other_host
from world import PENSTOCK, World, world

from traces import left_over, shared_memory
from waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from provenance import RESULTS, provenance  # noqa: E402 - found beside the other measurements

OUT = RESULTS / "reliability.json"
SEED = 1
SPREAD = 1.5  # a disturbed study's error over the worst undisturbed one, at most

Row = Callable[[Path, random.Random], dict[str, Any]]


def undisturbed(folder: Path, rng: random.Random) -> dict[str, Any]:
    """Nothing is done to it."""
    with world(folder) as study:
        return ended(study)


def in_mid_study(fault: faults.Fault, **settings: Any) -> Row:
    """The fault, once a third of the simulations have finished, and once more at two thirds."""

    def row(folder: Path, rng: random.Random) -> dict[str, Any]:
        with world(folder, **settings) as study:
            for part in (1, 2):
                study.until(lambda part=part: study.finished() >= 20 * part)
                assert fault(study, rng), f"{fault.__name__} found nothing to do"
            return ended(study)

    row.__doc__ = f"{fault.__doc__} Twice in a study."
    return row


def network_cut(seconds: float | None) -> Row:
    """A worker on another host whose cable is pulled, for some time or for good."""

    def row(folder: Path, rng: random.Random) -> dict[str, Any]:
        with other_host() as cable, world(folder, host=cable.here, simulations=120) as study:
            study.until((study.out / "connect.json").exists)
            far = study.add_worker(through=cable.command)
            study.until(lambda: any(e["pid"] == far for e in study.events("assigned")))
            cable.cut()
            if seconds is not None:
                time.sleep(seconds)
                cable.mend()
            return ended(study)

    row.__doc__ = (
        f"The cable of a worker on another host is pulled {'for good' if seconds is None else f'for {seconds:.0f} s'}."
    )
    return row


def solver_diverged(folder: Path, rng: random.Random) -> dict[str, Any]:
    """Simulations that start hotter than 450 K become NaN half-way, at each attempt."""
    with world(folder, diverges_above=450.0, retries=1) as study:
        return ended(study, failed=len(_hot(study)))


def _hot(study: World) -> set[int]:
    """Simulations that have failed for good, from the events and not from the report."""
    study.wait()
    return {e["simulation"] for e in study.events("failed") if not e["again"]}


def server_killed(folder: Path, rng: random.Random) -> dict[str, Any]:
    """`penstock run` is killed with SIGKILL at ten random moments, one of them while a checkpoint is written, and resumed each time."""
    with world(folder, simulations=150, capacity=2000) as study:
        for moment in range(10):
            if moment == 5:
                study.until(lambda: list((study.out / "checkpoints").glob(".writing-*")), pause=0.0005)
            else:
                time.sleep(rng.uniform(0.0, 6.0))
            assert faults.kill_server(study, rng), "the study had ended before all ten"
            known = len(study.events("assigned"))
            study.resume()
            study.until(lambda known=known: len(study.events("assigned")) > known)  # in this life
        return ended(study)


def checkpoint_truncated(folder: Path, rng: random.Random) -> dict[str, Any]:
    """`penstock run` is killed, its last checkpoint cut short, and the study resumed."""
    with world(folder) as study:
        study.until(lambda: len(list((study.out / "checkpoints").glob("0*"))) >= 2 and study.finished() >= 20)
        assert faults.kill_server(study, rng)
        assert faults.truncate_checkpoint(study, rng), "there was no second checkpoint"
        study.resume()
        end = ended(study)
    if not any("damaged" in warning for warning in end["report"]["warnings"]):
        end["wrong"].append("the report has no warning of the damaged checkpoint")
    return end


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "penstock-chaos", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disk_full(folder: Path, rng: random.Random) -> dict[str, Any]:
    """The file system of the run directory is full for some seconds, twice."""
    with small_disk(folder, 64), world(folder) as study:
        for part in (1, 2):
            study.until(lambda part=part: study.finished() >= 20 * part)
            assert faults.fill_disk(study, rng)
        return ended(study)


def two_servers(folder: Path, rng: random.Random) -> dict[str, Any]:
    """A second server is started on the run directory of one that runs: `penstock run`, and `penstock resume`."""
    with world(folder) as study:
        seconds = [
            subprocess.run([*PENSTOCK, *command], capture_output=True, text=True, check=False, timeout=PATIENCE)
            for command in (["resume", study.out], ["run", study.folder / "study.toml", "--out", study.out])
        ]
        end = ended(study)
    for second in seconds:
        if second.returncode != 2 or "running there" not in second.stderr:
            end["wrong"].append(f"the second server ended with {second.returncode}: {second.stderr[-300:]}")
    return end


def stale_worker(folder: Path, rng: random.Random) -> dict[str, Any]:
    """The server is restarted under a new incarnation; a worker comes back with the connect.json of the one before."""
    with world(folder) as study:
        old = faults.old_connect_file(study)
        study.until(lambda: study.finished() >= 20)
        assert faults.kill_coordinator(study, rng)
        study.until(lambda: json.loads((study.out / "connect.json").read_text()) != json.loads(old.read_text()))
        stale = study.add_worker(connect=old)
        end = ended(study)
        if any(e["pid"] == stale for e in study.events("assigned")):
            end["wrong"].append("a worker of the earlier incarnation was given a simulation")
    return end


def strangers(folder: Path, rng: random.Random) -> dict[str, Any]:
    """Clients without a key, with a key of their own, with a revoked key and with a wrong server key, beside the study's own."""
    with world(folder) as study:
        info = json.loads((study.out / "connect.json").read_text())
        wrong = study.folder / "wrong-server.json"
        with suppress(FileNotFoundError):
            wrong.unlink()
        from zmq import curve_keypair

        wrong.touch(mode=0o600)
        wrong.write_text(json.dumps({**info, "server_public_key": curve_keypair()[0].decode()}))
        revoked = study.folder / "revoked.json"
        for command in (["add", study.out, "leaver", "--out", revoked], ["revoke", study.out, "leaver"]):
            subprocess.run([*PENSTOCK, "key", *command], check=True, timeout=PATIENCE, capture_output=True)
        pids = [study.add_worker(connect=wrong), study.add_worker(connect=revoked)]
        for _ in range(3):
            assert faults.uninvited(study, rng)
        end = ended(study)
        if any(e["pid"] in pids for e in study.events("client", "assigned")):
            end["wrong"].append("an uninvited client was welcomed")
    return end


ROWS: dict[str, Row] = {
    "undisturbed_1": undisturbed,
    "undisturbed_2": undisturbed,
    "undisturbed_3": undisturbed,
    "client_killed": in_mid_study(faults.kill_worker),
    "client_frozen": in_mid_study(faults.freeze_worker),
    "every_simulation_failed": rows_of_clients.every_simulation_failed,
    "node_lost": rows_of_clients.node_lost,
    "network_cut_30s": network_cut(30.0),
    "network_cut_for_good": network_cut(None),
    "solver_diverged": solver_diverged,
    "rank_killed": in_mid_study(faults.kill_rank),
    "ranks_disconnected": rows_of_servers.ranks_disconnected,
    "ranks_network_cut": rows_of_servers.ranks_network_cut,
    "coordinator_killed": in_mid_study(faults.kill_coordinator),
    "ray_head_killed": in_mid_study(faults.kill_ray_head),
    "raylet_killed": in_mid_study(faults.kill_raylet),
    "server_killed": server_killed,
    "checkpoint_truncated": checkpoint_truncated,
    "disk_full": disk_full,
    "old_checkpoints_stay": rows_of_servers.old_checkpoints_stay,
    "socket_thread_died": rows_of_servers.socket_thread_died,
    "two_servers": two_servers,
    "stale_worker": stale_worker,
    "damaged_messages": in_mid_study(faults.corrupt_frames),
    "strangers": strangers,
}


def run(name: str) -> dict[str, Any]:
    """One row, in a folder of its own."""
    before = shared_memory()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        end = ROWS[name](Path(folder), random.Random(f"{SEED} {name}"))
        left = left_over(folder, Path(folder) / "run", before)
    report = end["report"]
    wrong = end["wrong"] + [f"left over: {trace}" for trace in left]
    return {
        "row": name,
        "fault": (ROWS[name].__doc__ or "").strip(),
        "samples": report["samples"],
        "simulations": report["simulations"],
        "incarnations": report["incarnations"],
        "outages": report.get("outages", []),
        "relative_l2": report["validation"]["relative_l2"],
        "seconds": round(time.monotonic() - begun, 1),
        "wrong": wrong,
        **provenance(f"python tests/chaos/rows.py --only {name}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    names = parser.parse_args().only
    found: dict[str, Any] = {r["row"]: r for r in json.loads(OUT.read_text())["rows"]} if OUT.is_file() else {}
    bad = 0
    for name in names:
        row = found[name] = run(name)
        worst = max((r["relative_l2"] for n, r in found.items() if n.startswith("undisturbed")), default=None)
        if worst is not None and row["relative_l2"] > SPREAD * worst:
            row["wrong"].append(f"relative L2 {row['relative_l2']:.4g}, undisturbed at most {worst:.4g}")
        bad += bool(row["wrong"])
        print(f"{name}: {'; '.join(row['wrong']) or 'as it must be'} ({row['seconds']} s)", flush=True)
        OUT.write_text(json.dumps({"rows": [found[n] for n in ROWS if n in found]}, indent=2) + "\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
