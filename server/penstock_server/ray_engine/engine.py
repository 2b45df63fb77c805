"""The Ray engine: starts Ray on this machine, places the actors, and follows the study to its end."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from penstock_client.errors import PenstockError
from penstock_server.config import Study
from penstock_server.engine import SimulationCounts, StudyStatus
from penstock_server.keys import open_keys
from penstock_server.plan import next_incarnation
from penstock_server.rank_status import RankStatus
from penstock_server.ray_engine.actors import CoordinatorActor, RankActor
from penstock_server.report import build_report, study_outcome, study_status, write_report

OBJECT_STORE_BYTES = 80 * 2**20  # Ray's smallest: no field ever goes through it
START_TIMEOUT = 120.0
STOP_TIMEOUT = 60.0


class EngineError(PenstockError):
    """The server could not be started."""


class RayEngine:
    """Runs one study on a Ray that it starts on this machine; see `penstock_server.engine.Engine`.

    Args:
        study, directory: what runs, and where its run directory is. threads: CPU threads of each trainer rank.
        own_cores: the cores, by number, that the training threads alone run on; empty: wherever this process may.
    """

    def __init__(self, study: Study, directory: Path, *, threads: int, own_cores: tuple[int, ...] = ()) -> None:
        self._study, self._directory, self._threads = study, directory.absolute(), threads
        self._own_cores = own_cores
        self._begun = time.monotonic()
        self._stopped = ""
        self._error = ""
        self._coordinator: Any = None  # actor handles: Ray makes their methods at run time
        self._ranks: list[Any] = []
        self._training: list[Any] = []

    def start(self) -> Path:
        study = self._study
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        environment = {
            name: os.environ[name]
            for name in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")
            if name in os.environ
        }
        environment["OMP_NUM_THREADS"] = str(self._threads)
        # A folder of our own: short, because socket paths are limited to 107 characters, and removed at the end.
        self._ray_directory = Path(tempfile.mkdtemp(prefix="penstock-ray-"))
        ray.init(
            address="local",
            num_cpus=study.training.ranks + 1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(self._ray_directory),
            runtime_env={"env_vars": environment},
        )
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpu = int(study.training.device != "cpu" and resources.get("GPU", 0) >= study.training.ranks)
        bundle = {"CPU": 1.0, "GPU": 1.0} if gpu else {"CPU": 1.0}
        group = placement_group([{"CPU": 1.0}, *(dict(bundle) for _ in range(study.training.ranks))])
        ray.get(group.ready(), timeout=START_TIMEOUT)

        def options(bundle: int) -> dict[str, Any]:
            return {
                "num_cpus": 1,
                "max_concurrency": 16,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle),
            }

        keys = open_keys(self._directory)
        incarnation = next_incarnation(self._directory)
        self._incarnation = incarnation
        coordinator = (
            ray.remote(CoordinatorActor).options(**options(0)).remote(study, self._directory, incarnation, keys)
        )
        self._coordinator = coordinator
        self._ranks = [
            ray.remote(RankActor)
            .options(**options(1 + rank), num_gpus=gpu)
            .remote(study, self._directory, rank, incarnation, keys, coordinator, self._threads, self._own_cores)
            for rank in range(study.training.ranks)
        ]
        try:
            started = ray.get([rank.start.remote() for rank in self._ranks], timeout=START_TIMEOUT)
            endpoints, metrics, restored = zip(*started, strict=True)
            connecting = self._coordinator.start.remote(self._ranks, list(endpoints), list(metrics), restored[0])
            path: Path = ray.get([connecting], timeout=START_TIMEOUT)[0]
        except ray.exceptions.RayError as error:
            raise EngineError(f"the server did not start: {getattr(error, 'cause', None) or error}") from error
        self._training = [rank.train.remote() for rank in self._ranks]
        return path

    def status(self) -> StudyStatus:
        try:
            counts, wanted, over, error = ray.get(self._coordinator.status.remote())
            given_up = ray.get(self._coordinator.given_up.remote())
            ranks = ray.get([rank.status.remote() for rank in self._ranks])
        except ray.exceptions.RayActorError as error:
            self._error = self._error or f"a server process died: {error}"
            return StudyStatus(phase="failed", elapsed=time.monotonic() - self._begun, message=self._error)
        return study_status(
            ranks,
            counts,
            wanted_workers=0 if any(r.over for r in ranks) else wanted,
            elapsed=time.monotonic() - self._begun,
            production_over=over,
            error=self._error or error,
            stopped=self._stopped,
            given_up=given_up,
        )

    def worker_exited(self, pid: int, code: int | None, message: str) -> None:
        self._coordinator.worker_exited.remote(pid, f"exit code {code}: {message}")

    def stop(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        self._coordinator.stop.remote()
        for rank in self._ranks:
            rank.stop.remote(reason)

    def fail(self, reason: str) -> None:
        self._error = self._error or reason
        self.stop(reason)

    def wait(self, timeout: float) -> bool:
        done, _ = ray.wait(self._training, num_returns=len(self._training), timeout=timeout)
        return len(done) == len(self._training)

    def close(self) -> dict[str, Any]:
        try:
            return self._close()
        finally:
            ray.shutdown()
            shutil.rmtree(self._ray_directory, ignore_errors=True)

    def _close(self) -> dict[str, Any]:
        if not self.wait(0):
            self.stop("closed")
            self.wait(STOP_TIMEOUT)
        try:
            ray.get(self._training)
            self._coordinator.stop.remote()
            ranks = ray.get([rank.status.remote() for rank in self._ranks])
            unique, by_simulation = 0, dict[int, int]()
            for total, counts in ray.get([rank.unique.remote() for rank in self._ranks]):
                unique += total
                for simulation, number in counts.items():
                    by_simulation[simulation] = by_simulation.get(simulation, 0) + number
            control_error = ray.get(self._coordinator.status.remote())[3]
            outcome = ray.get(self._coordinator.outcome.remote(by_simulation))
        except ray.exceptions.RayActorError as error:
            self._error = self._error or f"a server process died: {error}"
            ranks, unique, control_error = [RankStatus()], 0, ""
            outcome = {
                "simulations": SimulationCounts(), "expected": 0, "blocked_seconds": 0.0, "failures": {}, "control_refused": {},
            }  # fmt: skip
        status, message = study_outcome(ranks, outcome["simulations"], self._error or control_error, self._stopped)
        report = build_report(
            self._study,
            status=status,
            message=message,
            wall_seconds=time.monotonic() - self._begun,
            incarnations=self._incarnation,
            unique=unique,
            ranks=ranks,
            **outcome,
        )
        write_report(self._directory, report)
        if not self._error:
            ray.get(self._coordinator.close.remote(status, message))
            ray.get([rank.close.remote() for rank in self._ranks])
        return report
