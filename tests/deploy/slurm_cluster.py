"""A real Slurm of two nodes on this machine, in a scratch folder: munged, slurmctld and two slurmd, for the tests that need one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from waiting import PATIENCE, wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
SETTINGS = """\
ClusterName=scratch
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SchedulerParameters=bf_interval=1,sched_min_interval=100000,batch_sched_delay=0
KillWait=10
MessageTimeout=60
TCPTimeout=30
BatchStartTimeout=60
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory={memory}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory={memory}
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no Slurm can be started here; "" if one can."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]:
        return f"{', '.join(missing)} not installed (apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "only root can start a Slurm"


@contextmanager
def slurm_cluster() -> Iterator[None]:
    """Have Slurm's commands, here and in processes started from here, speak to a cluster of the nodes n1 and n2."""
    if reason := why_not():
        raise RuntimeError(reason)
    with ExitStack() as stack:
        # Not pytest's folder: the paths of sockets are limited to 107 characters.
        folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        for name in ("state", "n1", "n2"):
            (folder / name).mkdir()
        settings = folder / "slurm.conf"
        settings.write_text(
            SETTINGS.format(
                host=socket.gethostname().split(".")[0],
                ports=_free_ports(3),
                folder=folder,
                cpus=os.cpu_count(),
                memory=min(4000, psutil.virtual_memory().total // 2**21),
            )
        )
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        before = os.environ.get("SLURM_CONF")
        os.environ["SLURM_CONF"] = str(settings)
        stack.callback(_restore, before)
        files = [f"--{kind}-file={folder}/munged.{kind}" for kind in ("pid", "log", "seed")]
        _start(
            stack,
            folder,
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder}/munge.sock",
            f"--key-file={key}",
            *files,
        )
        wait_for((folder / "munge.sock").exists)
        _start(stack, folder, "slurmctld", "-D", "-c")
        for node in ("n1", "n2"):
            _start(stack, folder, "slurmd", "-D", "-N", node)
        wait_for(nodes_are_idle)
        stack.callback(_cancel_all)
        yield


def slurm(*words: str) -> str:
    """Run one of Slurm's commands; what it printed. "" where it failed."""
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE).stdout


def nodes_are_idle() -> bool:
    return slurm("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle", "idle"]


def queue(what: str = "") -> dict[str, str]:
    """Jobs that have not ended, each element of an array by itself: id to state. what: only where the job's name ends so."""
    lines = slurm("squeue", "--noheader", "--array", "--format=%i %T %j").splitlines()
    return {id_: state for id_, state, name in map(str.split, lines) if name.endswith(what)}


def _start(stack: ExitStack, folder: Path, *command: str) -> None:
    log = stack.enter_context((folder / f"{command[0]}.out").open("ab"))
    path = shutil.which(command[0], path=_path())
    assert path is not None
    process = subprocess.Popen([path, *command[1:]], stdout=log, stderr=subprocess.STDOUT)

    def stop() -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(stop)


def _cancel_all() -> None:
    slurm("scancel", "--user=root")
    wait_for(lambda: not queue())


def _restore(before: str | None) -> None:
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
