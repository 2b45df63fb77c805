"""What a running study shows: a live panel on a terminal, a line every ten seconds elsewhere; and its summary at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from penstock_server.engines import StudyStatus

LINE_EVERY = 10.0  # seconds


def duration(seconds: float) -> str:
    """0:01:05"""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def number(value: float | None, digits: int = 3) -> str:
    """A float for people; "-" where there is none yet."""
    return "-" if value is None else f"{value:.{digits}g}"


def status_line(status: StudyStatus) -> str:
    """Everything about a study's state in one line."""
    s = status.simulations
    simulations = (
        f"{duration(status.elapsed)} {status.phase}: simulations {s.finished}/{s.requested} finished, {s.failed} failed, "
        f"{s.running} running"
    )
    if not status.capacity:  # nothing is buffered yet, or nothing will be: the study is being recorded
        return f"{simulations}; time steps {status.received}"
    return (
        f"{simulations}; samples {status.received}; buffer {status.population}/{status.capacity}; "
        f"batches {status.batches} ({status.samples_per_second:.0f} samples/s); loss {number(status.loss)}; "
        f"validation relative L2 {number(status.validation_relative_l2)}"
    )


class Display:
    """Shows a study's progress; `log` may be called from any thread. Use as a context manager around `update` calls.

    Args:
        name: the study's. batch_size: to give batches a second. console: where to; its kind decides between panel and lines.
    """

    def __init__(
        self, name: str, batch_size: int, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._batch_size, self._console, self._clock = name, batch_size, console, clock
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._said_at = float("-inf")
        self._phase = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def log(self, line: str) -> None:
        """Say one thing, above the panel where there is one."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, status: StudyStatus) -> None:
        """Show how the study stands now."""
        if self._live is not None:
            self._live.update(self._panel(status))
            return
        now = self._clock()
        if status.phase != self._phase or now - self._said_at >= LINE_EVERY:
            self._phase, self._said_at = status.phase, now
            self.log(status_line(status))

    def report(self, report: Mapping[str, Any], directory: Path) -> None:
        """Show the outcome."""
        print_report(self._console, report, directory)

    def _panel(self, status: StudyStatus) -> Group:
        s, table = status.simulations, Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_column(width=24)
        table.add_column()

        def bar(done: int, total: int) -> ProgressBar:
            return ProgressBar(total=max(1, total), completed=done, width=24)

        states = f"{s.finished} of {s.requested} finished, {s.running} running, {s.failed} failed"
        table.add_row("simulations", bar(s.finished + s.failed, s.requested), states)
        if status.phase == "recording":
            table.add_row("recorded", "", f"{status.received} time steps")
            return Group(self._title(status), table)
        table.add_row(
            "buffer", bar(status.population, status.capacity), f"{status.population} of {status.capacity} samples"
        )
        batches = status.samples_per_second / self._batch_size
        table.add_row("received", "", f"{status.received} samples")
        table.add_row("training", "", f"{status.batches} batches, {batches:.1f} batches/s, loss {number(status.loss)}")
        table.add_row("validation", "", f"relative L2 {number(status.validation_relative_l2)}")
        return Group(self._title(status), table)

    def _title(self, status: StudyStatus) -> Text:
        return Text(f"{self._name}  {status.phase}  {duration(status.elapsed)}", style="bold cyan")


def _rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    sims, samples, training = report["simulations"], report["samples"], report["training"]
    buffer, clients, validation = report["buffer"], report["clients"], report["validation"]
    rows = [
        ("wall time", f"{duration(report['wall_seconds'])} in {report['incarnations']} incarnation(s)"),
        (
            "simulations",
            f"{sims['finished']} of {sims['requested']} finished, {sims['failed']} failed, {sims['restarted']} restarted, "
            f"{sims['redrawn']} redrawn",
        ),
        (
            "samples",
            f"{samples['unique']} of {samples['expected']} expected; {samples['duplicates_dropped']} duplicates dropped, "
            f"{samples['rejected']} messages refused",
        ),
        ("trained on", f"{samples['trained_unique']} samples, {samples['presentations']} presentations"),
        (
            "training",
            f"{training['batches']} batches on {training['ranks']} x {training['device']}, "
            f"{training['samples_per_second']:.0f} samples/s, {100 * training['stall_fraction']:.1f} % of the time waiting for data",
        ),
        (
            "buffer",
            f"{buffer['policy']}, {buffer['mean_population']:.0f} of {buffer['capacity']} on average, "
            f"each sample seen {number(buffer['mean_times_seen'])} times",
        ),
        (
            "received",
            f"{clients['bytes_received'] / 1e6:.1f} MB; clients waited {clients['blocked_seconds']:.1f} s for room",
        ),
    ]
    if validation is None:
        return [*rows, ("validation", "no held-out samples")]
    errors = (
        f"relative L2 {number(validation['relative_l2'])} (99th percentile {number(validation['relative_l2_p99'])})"
    )
    return [*rows, ("validation", f"{errors}, MSE {number(validation['mse'])}")]


def print_report(console: Console, report: Mapping[str, Any], directory: Path) -> None:
    """Print report.json for people, and where the rest is."""
    color = {"finished": "green", "stopped": "yellow"}.get(report["status"], "red")
    title = Text(f"{report['study']}: ").append(report["status"], style=f"bold {color}")
    console.print(title.append(f" ({report['message']})" if report.get("message") else ""), soft_wrap=True)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in _rows(report):
        table.add_row(name, Text(text))
    console.print(table)
    for simulation, message in list(report.get("failures", {}).items())[:5]:
        console.print(
            Text(f"simulation {simulation} failed: {message.splitlines()[0] if message else ''}"), soft_wrap=True
        )
    pictures = sorted((directory / "plots").glob("*.png")) if (directory / "plots").is_dir() else []
    where = (
        f"{directory / 'plots'} ({len(pictures)} pictures)"
        if pictures
        else f"draw them with: penstock plot {directory}"
    )
    console.print(Text(f"report: {directory / 'report.json'}\nplots:  {where}"), soft_wrap=True)
