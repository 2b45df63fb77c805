"""Worker processes: how a launcher keeps them running on this machine, and what any launcher must offer."""

from penstock.workers.launcher import LocalLauncher, WorkerProcesses, tail, worker_command
from penstock.workers.quick_deaths import QUICK_DEATHS, QuickDeaths
from penstock.workers.study_link import Launcher, StudyLink

__all__ = [
    "QUICK_DEATHS",
    "Launcher",
    "LocalLauncher",
    "QuickDeaths",
    "StudyLink",
    "WorkerProcesses",
    "tail",
    "worker_command",
]
