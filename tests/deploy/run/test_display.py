"""What a running study shows, on a terminal and in a log."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from penstock.run import Display, print_report
from penstock.run.display import status_line
from penstock.run.numbers import duration
from penstock.run.report import failure_lines
from penstock_server.coordinator import SimulationCounts
from penstock_server.engines import StudyStatus

STATUS = StudyStatus(
    phase="training",
    elapsed=3725.0,
    simulations=SimulationCounts(requested=64, finished=10, failed=1, running=2),
    received=1100,
    population=900,
    capacity=2000,
    batches=42,
    samples_per_second=640.0,
    loss=0.0123456,
    validation_relative_l2=None,
)
REPORT: dict[str, Any] = {
    "study": "cavity",
    "status": "failed",
    "message": "no [bold] simulation",
    "wall_seconds": 65.2,
    "incarnations": 2,
    "simulations": {"requested": 64, "finished": 60, "failed": 4, "restarted": 3, "redrawn": 0},
    "failures": {"7": "diverged\nlast line"},
    "samples": {
        "expected": 6000, "unique": 5999, "duplicates_dropped": 3, "rejected": 1, "trained_unique": 5999, "presentations": 12000,
    },
    "training": {"batches": 375, "ranks": 1, "device": "cpu", "samples_per_second": 512.4, "stall_fraction": 0.25},
    "buffer": {"policy": "firo", "capacity": 100, "mean_population": 55.5, "mean_times_seen": 2.0},
    "clients": {"bytes_received": 12_500_000, "blocked_seconds": 1.25},
    "validation": None,
}  # fmt: skip


def test_lines_come_at_each_phase_and_every_ten_seconds() -> None:
    now, out = 0.0, io.StringIO()
    display = Display("cavity", 32, Console(file=out, width=300), clock=lambda: now)
    with display:
        for now in (0.0, 4.0, 9.9, 10.0, 12.0):  # noqa: B007 - the clock reads it
            display.update(STATUS)
        display.update(StudyStatus(phase="finished"))
    lines = out.getvalue().splitlines()
    assert lines[:2] == [status_line(STATUS)] * 2
    assert [line.split(":")[2] for line in lines[2:]] == ["00 finished"]


def test_the_line_says_everything() -> None:
    assert status_line(STATUS) == (
        "1:02:05 training: simulations 10/64 finished, 1 failed, 2 running; samples 1100; buffer 900/2000; "
        "batches 42 (640 samples/s); loss 0.0123; validation relative L2 -"
    )


def test_a_terminal_gets_a_panel_that_goes_away() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, height=30, color_system=None)
    display = Display("cavity", 32, console)
    with display:
        display.update(STATUS)
        display.log("a [worker] died")
        display._live.refresh() if display._live else None
        shown = out.getvalue()
    for text in (
        "10 of 64 finished, 2 running, 1 failed",
        "900 of 2000 samples",
        "1100 samples",
        "42 batches, 20.0 batches/s, loss 0.0123",
        "relative L2 -",
        "a [worker] died",
    ):
        assert text in shown


def test_the_report_for_people(tmp_path: Path) -> None:
    out = io.StringIO()
    print_report(Console(file=out, width=140), REPORT, tmp_path)
    for text in (
        "cavity: failed (no [bold] simulation)",
        "0:01:05 in 2 incarnation(s)",
        "60 of 64 finished, 4 failed, 3 restarted, 0 redrawn",
        "5999 of 6000 expected; 3 duplicates dropped, 1 messages refused",
        "25.0 % of the time waiting for data",
        "no held-out samples",
        "simulation 7 failed: diverged\n",
        f"penstock plot {tmp_path}",
    ):
        assert text in out.getvalue()
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "training.png").touch()
    print_report(
        Console(file=out, width=140),
        REPORT | {"validation": {"relative_l2": 0.03, "relative_l2_p99": 0.1, "mse": 2.0}},
        tmp_path,
    )
    assert "relative L2 0.03 (99th percentile 0.1), MSE 2" in out.getvalue()
    assert f"{tmp_path / 'plots'} (1 pictures)" in out.getvalue()


def test_why_simulations_failed_is_told_by_their_own_logs(tmp_path: Path) -> None:
    (tmp_path / "simulation-7.log").write_text("starting\n" * 30 + "cannot open shared object file: libmine.so\n")
    (tmp_path / "simulation-9.log").write_text("")
    said = "./solver ended with code 1\nThe last 2 lines of its log:\n  reading\n    no licence"
    lines = list(failure_lines({"7": "./solver ended with code 127", "8": said, "9": ""}, tmp_path))
    assert lines[:2] == [
        "simulation 7 failed: ./solver ended with code 127",
        f"  the last lines of {tmp_path}/simulation-7.log:",
    ]
    assert lines[11] == "    cannot open shared object file: libmine.so"
    assert lines[12:] == [
        "simulation 8 failed: ./solver ended with code 1",
        "    The last 2 lines of its log:",
        "    reading",
        "      no licence",
        "simulation 9 failed: ",
    ]
    many = list(failure_lines(dict.fromkeys(range(12), "diverged"), tmp_path / "logs"))
    assert many[5:] == [f"7 further simulations failed; their logs are in {tmp_path}/logs"]


def test_each_field_has_its_error_in_the_summary(tmp_path: Path) -> None:
    fields = {"U": {"relative_l2": 0.046, "mse": 0.1}, "p": {"relative_l2": 1.99, "mse": 3.0}}
    validation = {"relative_l2": 1.02, "relative_l2_p99": 2.1, "mse": 2.0, "fields": fields}
    out = io.StringIO()
    print_report(Console(file=out, width=140), REPORT | {"validation": validation, "failures": {}}, tmp_path)
    assert "relative L2 1.02 (99th percentile 2.1), MSE 2, mean of 2 fields" in out.getvalue()
    assert [line.split() for line in out.getvalue().splitlines() if line.startswith("  ")] == [
        ["U", "relative", "L2", "0.046,", "MSE", "0.1"],
        ["p", "relative", "L2", "1.99,", "MSE", "3"],
    ]


def test_what_never_trained_is_not_to_be_plotted(tmp_path: Path) -> None:
    out = io.StringIO()
    print_report(Console(file=out, width=140), REPORT | {"training": REPORT["training"] | {"batches": 0}}, tmp_path)
    assert "penstock plot" not in out.getvalue()


def test_durations() -> None:
    assert [duration(s) for s in (0, 59.9, 3600)] == ["0:00:00", "0:00:59", "1:00:00"]


def test_a_strangers_report_does_not_steer_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b[2K\x1b]0;title\x07\u202eall is well"
    report = REPORT | {
        "study": evil,
        "message": evil,
        "warnings": [evil],
        "failures": {"0": evil, evil: "why"},
    }
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "simulation-0.log").write_text(f"solver: {evil}\n")
    out = io.StringIO()
    print_report(Console(file=out, width=140), report, tmp_path)
    assert "all is well" in out.getvalue()
    assert not set(out.getvalue()) & set("\x1b\x07\u202e")
