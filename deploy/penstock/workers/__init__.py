"""Worker processes on this machine: started, watched, replaced."""

from penstock.workers.launcher import LocalLauncher, tail, worker_command
from penstock.workers.quick_deaths import QUICK_DEATHS, QUICK_SECONDS, QuickDeaths

__all__ = ["QUICK_DEATHS", "QUICK_SECONDS", "LocalLauncher", "QuickDeaths", "tail", "worker_command"]
