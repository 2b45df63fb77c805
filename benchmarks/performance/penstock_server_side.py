"""Penstock's side of a stream: the inline engine with its sockets, and a study with the defaults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from performance.job import Job, Meter, provide_memory
from performance.processes import await_word, tell

LOOK_SECONDS = 0.02  # between two queries of the study's status


def make_study(job: Job) -> Any:
    """Return the study: everything that the job does not say is as a user gets it."""
    from penstock_server.study import Study
    from penstock_server.study.server import ServerSection

    server: dict[str, Any] = {"host": job.options.get("host", "127.0.0.1")}
    # Another network namespace stands for another machine, but has the memory of this one.
    if job.options.get("apart") and "shared_memory" in ServerSection.model_fields:
        server["shared_memory"] = False
    return Study.model_validate(
        {
            "study": {"name": "bench", "engine": "inline"},
            "parameters": {"a": [0.0, 1.0]},
            "solver": {"command": ["none"], "simulations": job.producers},
            "fields": {"T": {}},
            "buffer": _end_to_end() if job.batch else _storage_only(job),
            **_training(job),
            "server": server,
        }
    )


def _training(job: Job) -> dict[str, Any]:
    """Return the smallest model; one that computes nothing where only the batches count."""
    training = {"batch_size": job.batch or 1, "device": "cpu", "checkpoint_every": 3600.0}
    if job.options.get("untrained"):
        return {
            "model": {"name": "performance.nothing:Nothing"},
            "training": {**training, "loss": "performance.nothing:nothing"},
            "normalisation": {"inputs": False, "targets": False},
        }
    return {"model": {"name": "mlp", "hidden": [1]}, "training": training}


def _end_to_end() -> dict[str, Any]:
    return {"policy": "fifo"}


def _storage_only(job: Job) -> dict[str, Any]:
    """Return a buffer that never fills and a watermark that is never reached, so that nothing is trained."""
    return {"capacity": job.total + 2, "watermark": job.total + 1, "presentations_per_sample": 1e-9}


def serve(job: Job) -> None:
    """Run the server until every time step is in the buffer, or has been trained on."""
    from penstock.study import make_openmp_wait_passively

    make_openmp_wait_passively()  # as `penstock run` does, before torch is imported
    from penstock_server.engines.inline import InlineEngine

    with tempfile.TemporaryDirectory(dir=job.scratch) as folder:
        engine = InlineEngine(make_study(job), Path(folder), threads=1)
        tell(connect=str(engine.start()))
        # Clients hold small steps back until they send more, but never the first.
        _wait(engine, lambda status: status.received >= job.producers)
        tell(warm=True)
        await_word()
        provide_memory(job)
        before, meter, profiler = engine.status(), Meter(), _profiler(job)
        tell(started=True)
        if job.batch:
            end = job.total // job.batch
            _wait(engine, lambda status: status.batches >= end)
            figures = meter.figures((end - before.batches) * job.batch)
        else:
            _wait(engine, lambda status: status.received >= job.total)
            figures = meter.figures(job.total - before.received)
        if profiler is not None:
            profiler.send_signal(signal.SIGINT)  # it writes what it has seen
            profiler.wait(60)
        tell(**figures)
        engine.wait(0.5)
        engine.stop("measured")
        engine.wait(60)
        engine.close()


def _profiler(job: Job) -> subprocess.Popen[bytes] | None:
    """Start py-spy on this process, where the job asks for its stacks."""
    stacks = job.options.get("stacks")
    if stacks is None:
        return None
    program = Path(sys.executable).parent / "py-spy"
    # Without --nonblocking it would stop this process for each sample.
    arguments = ["record", "--nonblocking", "--rate", "200", "--format", "raw", "--duration", "600", "--output", stacks]
    with Path(f"{stacks}.log").open("wb") as log:
        return subprocess.Popen([program, *arguments, "--pid", str(os.getpid())], stdout=log, stderr=log)


def _wait(engine: Any, reached: Any) -> None:
    while not reached(status := engine.status()):
        if status.phase in ("failed", "stopped"):
            raise RuntimeError(f"the study has {status.phase}: {status.message}")
        time.sleep(LOOK_SECONDS)
