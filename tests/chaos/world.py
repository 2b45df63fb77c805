"""A real study in real processes, for faults to be done to: `penstock run`, its Ray daemons and actors, workers here and elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # for rows.py and soak.py, which are run as scripts
from traces import MARK, left_over, shared_memory  # noqa: E402
from waiting import PATIENCE  # noqa: E402

PENSTOCK = [sys.executable, "-m", "penstock.main"]
TIRED = 900.0  # seconds after which a study that has not ended never will

STUDY = """
[study]
name = "chaos"
seed = {seed}

[parameters]
initial = [100.0, 500.0]
left = [100.0, 500.0]
right = [100.0, 500.0]
bottom = [100.0, 500.0]
top = [100.0, 500.0]

[solver]
adapter = "paced_heat:PacedHeat"
simulations = {simulations}
validation_simulations = 8
concurrency = {concurrency}
retries = {retries}
options = {{ points = 16, steps = {steps}, dt = 0.04, pause = {pause}, diverges_above = {diverges_above} }}

[fields]
T = {{}}

[buffer]
capacity = {capacity}
watermark = 200
presentations_per_sample = 4

[model]
name = "mlp"
hidden = [64, 64]

[training]
batch_size = 32
optimizer = {{ name = "adam", lr = 1e-3 }}
device = "cpu"
threads = 1
ranks = {ranks}
validate_every = 200
checkpoint_every = {checkpoint_every}

[server]
host = "{host}"
heartbeat = 0.5
client_timeout = {client_timeout}
server_timeout = {server_timeout}
max_restarts = {max_restarts}
"""


@dataclass
class World:
    """One run directory and everything that runs for it.

    settings: of the study file above; what is not given is as in `SETTINGS`.
    command: that runs `penstock`; may be changed before each start.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    command: list[str] = field(default_factory=lambda: list(PENSTOCK))
    process: subprocess.Popen[bytes] | None = None
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    shared_memory: set[Path] = field(default_factory=shared_memory)

    @property
    def out(self) -> Path:
        return self.folder / "run"

    @property
    def mark(self) -> str:
        """By which its processes are known: traces.py."""
        return str(self.folder)

    @property
    def steps(self) -> int:
        return int({**SETTINGS, **self.settings}["steps"])

    # Running -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Write the study file and run it."""
        study = self.folder / "study.toml"
        study.write_text(STUDY.format(**{**SETTINGS, **self.settings}))
        (self.folder / "paced_heat.py").write_text((HERE.parent / "paced_heat.py").read_text())
        self._launch("run", str(study), "--out", str(self.out))

    def resume(self) -> None:
        """`penstock resume` of the run directory; whatever ran before must have ended."""
        self._launch("resume", str(self.out))

    def _launch(self, *arguments: str) -> None:
        with (self.folder / "penstock.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, MARK: self.mark, "PYTHONUNBUFFERED": "1"},
            )

    def add_worker(self, *, through: Callable[..., list[str]] | None = None, connect: Path | None = None) -> int:
        """Start a worker that no launcher looks after; through: wraps its command, such as `Cable.command`. Returns its pid."""
        command = [*PENSTOCK, "worker", "--connect", str(connect or self.out / "connect.json")]
        with (self.folder / "workers.log").open("ab") as log:
            worker = subprocess.Popen(
                through(*command) if through else command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1"},
            )
        self.others.append(worker)
        return worker.pid

    def wait(self, seconds: float = TIRED) -> int:
        """The exit code of `penstock`, once it has ended by itself."""
        assert self.process is not None
        return self.process.wait(timeout=seconds)

    def left_over(self) -> list[str]:
        """What is still there of it, after its end; a line each."""
        return [f"left over: {trace}" for trace in left_over(self.mark, self.out, self.shared_memory)]

    def close(self) -> None:
        """End whatever still runs."""
        for process in [self.process, *self.others]:
            if process is not None and process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGCONT)
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    # Looking -------------------------------------------------------------------------------------------------------

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The events of these names so far, whole lines only."""
        with suppress(OSError):
            lines = (self.out / "events.jsonl").read_text().splitlines(keepends=True)
            whole = [json.loads(line) for line in lines if line.endswith("\n") and line.startswith("{")]
            return [event for event in whole if event["event"] in names]
        return []

    def finished(self) -> int:
        """Simulations that have finished so far, at least."""
        return len({event["simulation"] for event in self.events("finished") if "simulation" in event})

    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.out / "report.json").read_text()))

    def said(self) -> str:
        """What `penstock` has printed."""
        return (self.folder / "penstock.log").read_text(errors="replace")

    def until(self, true: Callable[[], object], seconds: float = PATIENCE, pause: float = 0.05) -> None:
        """Wait for something that must come true while the study runs."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"it never came true; penstock said: {self.said()[-2000:]}"
            assert self.process is None or self.process.poll() is None, f"penstock has ended: {self.said()[-2000:]}"
            time.sleep(pause)

    def family(self) -> list[psutil.Process]:
        """Every process that `penstock` has started, directly or not."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def pids(self, kind: str) -> list[int]:
        """Of "worker", "rank", "coordinator", "gcs_server" or "raylet": those of the study that run now."""
        mark = {
            "worker": "penstock_solvers.worker",
            "rank": "ray::RankActor",
            "coordinator": "ray::CoordinatorActor",
        }.get(kind, kind)
        found = []
        for process in self.family():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                words = process.cmdline()
                whole = " ".join(words[:1] if kind in ("gcs_server", "raylet") else words)
                if mark in whole and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def memory(self) -> dict[str, int]:
        """Resident bytes by kind of process."""
        found = {}
        for kind in ("coordinator", "rank"):
            for pid in self.pids(kind):
                with suppress(psutil.NoSuchProcess):
                    found[kind] = found.get(kind, 0) + psutil.Process(pid).memory_info().rss
        return found


SERVER_TIMEOUT = 60.0
SETTINGS: dict[str, Any] = {
    "seed": 7,
    "simulations": 60,
    "steps": 40,
    "pause": 0.01,
    "concurrency": 2,
    "ranks": 1,
    "retries": 1000000,
    "diverges_above": 1e9,
    "capacity": 1000,
    "checkpoint_every": 2.0,
    "client_timeout": 4.0,
    "server_timeout": SERVER_TIMEOUT,
    "max_restarts": 1000000,
    "host": "127.0.0.1",
}


@contextmanager
def world(folder: Path, *, command: list[str] | None = None, **settings: Any) -> Iterator[World]:
    """A study that is running; ended, whatever happens, with the context. command: as of `World`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = World(folder, settings, command or list(PENSTOCK))
    made.start()
    try:
        made.until(lambda: made.events("assigned"))
        yield made
    finally:
        made.close()
