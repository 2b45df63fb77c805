"""What a running study shows: a live panel on a terminal, a line every ten seconds elsewhere."""

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

from penstock.run.numbers import duration, number
from penstock.run.report import print_report
from penstock_server.engines import StudyStatus
from penstock_server.telemetry import plain_text

LINE_SECONDS = 10.0  # between two lines where there is no terminal


def status_line(status: StudyStatus) -> str:
    """Describe the state of a running study in one line."""
    s = status.simulations
    simulations = (
        f"{duration(status.elapsed)} {status.phase}: simulations {s.finished}/{s.requested} finished, "
        f"{s.failed} failed, {s.running} running"
    )
    if not status.capacity:  # nothing is buffered yet, or nothing will be: the study is being recorded
        return f"{simulations}; time steps {status.received}"
    return (
        f"{simulations}; samples {status.received}; buffer {status.population}/{status.capacity}; "
        f"batches {status.batches} ({status.samples_per_second:.0f} samples/s); loss {number(status.loss)}; "
        f"validation relative L2 {number(status.validation_relative_l2)}"
    )


class Display:
    """Shows the progress of a study; a context manager around the calls of `update`.

    Args:
        name: the study's name.
        batch_size: samples in a batch, to give batches a second.
        console: where to. A terminal gets a panel that is refreshed, anything else lines.
        clock: the time in seconds, from any origin.
    """

    def __init__(
        self, name: str, batch_size: int, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._batch_size, self._console, self._clock = name, batch_size, console, clock
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._printed_at = float("-inf")
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
        """Print a line, above the panel where there is one. May be called from any thread."""
        self._console.print(plain_text(line), markup=False, highlight=False, soft_wrap=True)

    def update(self, status: StudyStatus) -> None:
        """Show the present state of the study."""
        if self._live is not None:
            self._live.update(self._panel(status))
            return
        now = self._clock()
        if status.phase != self._phase or now - self._printed_at >= LINE_SECONDS:
            self._phase, self._printed_at = status.phase, now
            self.log(status_line(status))

    def report(self, report: Mapping[str, Any], directory: Path) -> None:
        """Show the outcome of the study.

        Args:
            report: the content of report.json.
            directory: the run directory.
        """
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
