"""A Ray over the nodes of the server's job while the study runs: its head on this node, the others started by srun."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock.slurm.commands import SlurmError, without_job
from penstock.slurm.profile import Profile
from penstock.study import StudyError, plan_threads
from penstock_server.engines.ray import ray_folder
from penstock_server.engines.ray.ray_folder import make_ray_folder, temporary
from penstock_server.network import interface_addresses
from penstock_server.study import Study

OBJECT_STORE_BYTES = 80 * 2**20  # the least that Ray accepts; fields do not pass through it
RAY = (
    *("-m", "ray.scripts.scripts", "start", "--block"),
    *(f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"),
)
LOOK_SECONDS = 0.3  # between two tries to reach Ray's head


def check_nodes(study: Study, profile: Profile) -> None:
    """Check that a study can run on the number of nodes that the profile gives its server.

    Raises:
        StudyError: it cannot.
    """
    nodes, ranks = profile.server.nodes, study.training.ranks
    if nodes == 1:
        return
    if study.study.engine != "ray" or study.training.source is not None:
        raise StudyError([f"[server] nodes = {nodes}: this study trains in one process: expected nodes = 1"])
    if ranks % nodes:
        raise StudyError(
            [
                f"[server] nodes = {nodes} with [training] ranks = {ranks}: expected as many trainer ranks on each "
                f"node; add --set training.ranks={nodes * max(1, round(ranks / nodes))}, or change nodes"
            ]
        )
    if study.training.own_cores:
        raise StudyError([f"[server] nodes = {nodes} with [training] own_cores = true: expected own_cores = false"])


def network_of(address: str) -> str:
    """Find the network of an IPv4 address of this machine, in the form that [server] host accepts.

    Raises:
        StudyError: no network interface of this machine has this address.
    """
    for own in interface_addresses():
        if own.address == address:
            return str(own.network)
    raise StudyError(
        [f"{address}: no network interface of {socket.gethostname()} has this address; give [server] interface"]
    )


@contextmanager
def ray_over_nodes(study: Study, profile: Profile, host: str, *, job: str, cores: int, log: Path) -> Iterator[str]:
    """Run a Ray with room for the study's coordinator on this node and the same number of trainer ranks on each node.

    Its use needs a token, which only the environments of this process and of Ray's own processes hold.

    Args:
        study: the study that will run on it.
        profile: of the cluster.
        host: this node's address.
        job: id of this job.
        cores: of each node.
        log: file for the output of Ray's own processes.

    Yields:
        The address of the Ray.

    Raises:
        SlurmError: there is no srun on this node, or Ray's head does not start.
    """
    if shutil.which("srun") is None:
        raise SlurmError(
            f"[server] nodes = {profile.server.nodes}: srun is not on the PATH: expected Slurm's commands where the "
            "server runs; bind them into the container, or set nodes = 1"
        )
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ.setdefault("RAY_worker_niceness", "0")  # as for a Ray on one machine
    address = f"{host}:{_free_port(host)}"
    folder = make_ray_folder()
    threads = plan_threads(study, cores * profile.server.nodes, solvers_here=False).training
    for_ranks = study.training.ranks // profile.server.nodes * threads
    head = _head(address, for_ranks + 1, folder)
    others = _others(profile, address, for_ranks, job, folder)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in (head, others):
            with log.open("ab") as output:
                started.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=without_job(os.environ),
                        start_new_session=True,
                    )
                )
            _wait_for_head(address, started[0], log, study.timeouts.start)
        yield address
    finally:
        _end(started, study.timeouts.kill)
        shutil.rmtree(folder, ignore_errors=True)


def _head(address: str, cores: int, folder: Path) -> list[str]:
    """The command that starts Ray's head on this node.

    Args:
        address: HOST:PORT where it listens.
        cores: that it may give to actors.
        folder: for its sockets and logs.
    """
    host, _, port = address.rpartition(":")
    return [
        *(sys.executable, *RAY, "--head", f"--node-ip-address={host}", f"--port={port}", f"--num-cpus={cores}"),
        *(f"--temp-dir={temporary(folder)}", "--include-dashboard=false"),
    ]


def _others(profile: Profile, address: str, cores: int, job: str, folder: Path) -> list[str]:
    """The command that starts a Ray on each of the job's other nodes, in the container where the profile has one.

    Args:
        profile: of the cluster.
        address: HOST:PORT of Ray's head.
        cores: that each node may give to actors.
        job: id of this job.
        folder: of Ray's head, which Ray uses under the same path on each node; made there first.
    """
    nodes = profile.server.nodes - 1
    step = ["srun", f"--jobid={job}", *(["--het-group=0"] if profile.together else []), "--relative=1"]
    step += [f"--nodes={nodes}", f"--ntasks={nodes}", f"--cpus-per-task={profile.server.cpus}"]
    container = shlex.split(profile.slurm.container or "")
    python = profile.slurm.interpreter
    ray = [python, *RAY, f"--address={address}", f"--num-cpus={cores}"]
    return [*step, *container, python, "-m", ray_folder.__name__, str(folder), *ray]


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _wait_for_head(address: str, head: subprocess.Popen[bytes], log: Path, timeout: float) -> None:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=timeout).close()
            return
        except OSError as error:
            if head.poll() is not None or time.monotonic() > deadline:
                how = "has not answered" if head.poll() is None else f"ended with code {head.returncode}"
                raise SlurmError(f"Ray's head at {address} {how} ({error}); its log is {log}") from error
        time.sleep(LOOK_SECONDS)


def _end(processes: list[subprocess.Popen[bytes]], timeout: float) -> None:
    """End the other nodes, then the head; processes that do not end within `timeout` seconds are killed."""
    for process in reversed(processes):
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
        process.kill()
        process.wait()
