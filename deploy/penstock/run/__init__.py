"""Running a study, its run directory, and how it stands."""

from penstock.run.directory import LOGS, REPORT, default_directory, expect_changeable, hold, open_run, prepare
from penstock.run.display import Display, print_report
from penstock.run.status import read_state

__all__ = [
    "LOGS",
    "REPORT",
    "Display",
    "default_directory",
    "expect_changeable",
    "hold",
    "open_run",
    "prepare",
    "print_report",
    "read_state",
]
