"""Running a study on this machine: its run directory, its progress and its outcome."""

from penstock.run.directory import LOGS, default_directory, expect_changeable, expect_own, hold, open_run, prepare
from penstock.run.display import Display
from penstock.run.report import EXIT_CODES, REPORT, outcome, print_report, read_report
from penstock.run.status import Jobs, RunState, read_state

__all__ = [
    "EXIT_CODES",
    "LOGS",
    "REPORT",
    "Display",
    "Jobs",
    "RunState",
    "default_directory",
    "expect_changeable",
    "expect_own",
    "hold",
    "open_run",
    "outcome",
    "prepare",
    "print_report",
    "read_report",
    "read_state",
]
