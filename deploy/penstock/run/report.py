"""report.json, the outcome of a study: reading it, and showing it to people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.run.directory import LOGS
from penstock.run.numbers import duration, number
from penstock.study import is_file
from penstock.workers import tail
from penstock_client import PenstockError
from penstock_server.telemetry import plain_text

REPORT = "report.json"
EXIT_CODES = {"finished": 0, "stopped": 1, "failed": 1}  # of a command, by the status of its study
SHOWN_FAILURES = 5  # failed simulations of which the summary shows the reason
SHOWN_LINES = 10  # lines of the log of each


class DamagedReport(PenstockError):
    """A report.json that is not what a study writes."""


def read_report(directory: Path) -> dict[str, Any] | None:
    """Read the report of a run directory.

    Returns:
        The report; None where the study has not ended yet.

    Raises:
        DamagedReport: the file cannot be read, or is no report.
    """
    path = directory / REPORT
    if not is_file(path):
        return None
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedReport(
            f"{path} cannot be read ({error}): expected the report of a study; remove it, then "
            f"`penstock resume {directory}` writes it again from the last checkpoint"
        ) from error
    if not isinstance(report, dict) or not report.keys() >= _KEYS:
        raise DamagedReport(
            f"{path} holds no report: expected an object with {', '.join(sorted(_KEYS))}; remove it, then "
            f"`penstock resume {directory}` writes it again from the last checkpoint"
        )
    return report


_KEYS = frozenset(("study", "status", "message", "wall_seconds", "simulations", "samples", "training", "validation"))


def outcome(directory: Path) -> str:
    """The status in the report of a run directory: "finished", "stopped" or "failed"; "" where there is no report.

    Raises:
        DamagedReport: there is a report that cannot be read.
    """
    report = read_report(directory)
    return "" if report is None else str(report["status"])


def print_report(console: Console, report: Mapping[str, Any], directory: Path) -> None:
    """Print a report for people, with the reasons of failed simulations, and where the rest is.

    Its texts may come from a solver or from a stranger's file: characters that steer a terminal are replaced.

    Args:
        console: where to.
        report: the content of report.json.
        directory: the run directory.
    """
    report = _plain(report)
    color = {"finished": "green", "stopped": "yellow"}.get(report["status"], "red")
    title = Text(f"{report['study']}: ").append(report["status"], style=f"bold {color}")
    console.print(title.append(f" ({report['message']})" if report.get("message") else ""), soft_wrap=True)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in _rows(report):
        table.add_row(name, Text(text))
    console.print(table)
    for line in report.get("warnings", ()):
        console.print(Text(f"warning: {line}", style="yellow"), soft_wrap=True)
    for line in failure_lines(report.get("failures", {}), directory / LOGS):
        console.print(Text(plain_text(line)), soft_wrap=True)
    console.print(Text(f"report: {directory / REPORT}"), soft_wrap=True)
    if where := _plots(report, directory):
        console.print(Text(f"plots:  {where}"), soft_wrap=True)


def _plain(value: Any) -> Any:
    """Return a value of a report with all its texts plain, keys included."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def failure_lines(failures: Mapping[str | int, str], logs: Path) -> Iterator[str]:
    """Tell why simulations failed, with the last lines that the solver of each printed.

    Only the first SHOWN_FAILURES are shown. A message may hold these lines itself; else they are read from the
    simulation's log.

    Args:
        failures: message by simulation.
        logs: folder of the simulations' logs.

    Yields:
        Lines for people.
    """
    for simulation, message in list(failures.items())[:SHOWN_FAILURES]:
        first, *own = message.splitlines() or [""]
        yield f"simulation {simulation} failed: {first}"
        log = logs / f"simulation-{simulation}.log"
        last = tail(log, SHOWN_LINES).splitlines() if log.is_file() else []
        if last:
            yield f"  the last lines of {log}:"
        yield from (f"    {line}" for line in last or [line.removeprefix("  ") for line in own[-SHOWN_LINES:]])
    if len(failures) > SHOWN_FAILURES:
        yield f"{len(failures) - SHOWN_FAILURES} further simulations failed; their logs are in {logs}"


def _rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The table of the summary: name and text of each row."""
    sims, samples, training = report["simulations"], report["samples"], report["training"]
    buffer, clients = report["buffer"], report["clients"]
    return [
        ("wall time", f"{duration(report['wall_seconds'])} in {report['incarnations']} incarnation(s)"),
        (
            "simulations",
            f"{sims['finished']} of {sims['requested']} finished, {sims['failed']} failed, "
            f"{sims['restarted']} restarted, {sims['redrawn']} redrawn",
        ),
        (
            "samples",
            f"{samples['unique']} of {samples['expected']} expected; {samples['duplicates_dropped']} duplicates "
            f"dropped, {samples['rejected']} messages refused",
        ),
        ("trained on", f"{samples['trained_unique']} samples, {samples['presentations']} presentations"),
        (
            "training",
            f"{training['batches']} batches on {training['ranks']} x {training['device']}, "
            f"{training['samples_per_second']:.0f} samples/s, "
            f"{100 * training['stall_fraction']:.1f} % of the time waiting for data",
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
        *_validation_rows(report["validation"]),
    ]


def _validation_rows(validation: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """The held-out errors, and those of each field where there are several: a mean over fields hides the worst one."""
    if validation is None:
        yield "validation", "no held-out samples"
        return
    errors = (
        f"relative L2 {number(validation['relative_l2'])} (99th percentile {number(validation['relative_l2_p99'])})"
    )
    fields, members = validation.get("fields", {}), validation.get("members")
    mean = f", mean of {len(fields)} fields" if len(fields) > 1 else ""
    yield "validation", f"{errors}, {_to_std(validation)}MSE {number(validation['mse'])}{mean}"
    if members is not None:
        each = ", ".join(number(error) for error in members["relative_l2"])
        ratio = "" if members["spread_to_error"] is None else f", {number(members['spread_to_error'])} of the error"
        yield "  members", f"relative L2 {each}; spread {number(members['spread'])}{ratio}"
    for name, field in fields.items() if len(fields) > 1 else ():
        yield (
            f"  {name}",
            f"relative L2 {number(field['relative_l2'])}, {_to_std(field)}MSE {number(field['mse'])}",
        )


def _to_std(errors: Mapping[str, Any]) -> str:
    """The error relative to the variation of the truth; "" where there is none, or in an old report."""
    ratio = errors.get("rmse_to_std")
    return "" if ratio is None else f"RMSE / std {number(ratio)}, "


def _plots(report: Mapping[str, Any], directory: Path) -> str:
    """Where the pictures are, or how to draw them; "" where there is nothing to draw."""
    folder = directory / "plots"
    pictures = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if pictures:
        return f"{folder} ({len(pictures)} pictures)"
    return f"draw them with: penstock plot {directory}" if report["training"]["batches"] else ""
