"""Running a study on this machine: its run directory, its progress and its outcome."""

from penstock.run.directory import (
    LOGS,
    default_directory,
    expect_changeable,
    expect_own,
    hold,
    holder,
    open_run,
    prepare,
)
from penstock.run.display import Display
from penstock.run.numbers import duration, number
from penstock.run.report import EXIT_CODES, REPORT, outcome, print_report, read_report
from penstock.run.simulation_states import SimulationStates
from penstock.run.status import Jobs, RunState, phase, read_state

__all__ = [
    "EXIT_CODES",
    "LOGS",
    "REPORT",
    "Display",
    "Jobs",
    "RunState",
    "SimulationStates",
    "default_directory",
    "duration",
    "expect_changeable",
    "expect_own",
    "hold",
    "holder",
    "number",
    "open_run",
    "outcome",
    "phase",
    "prepare",
    "print_report",
    "read_report",
    "read_state",
]
