"""The result of a comparison: means over seeds, a table in Markdown, and the gain of online training."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from penstock_client import PenstockError

Row = dict[str, Any]


class NoSuchVariant(PenstockError):
    """A comparison that has no rows of the variant asked for."""


def of_variant(rows: Sequence[Row], variant: str) -> list[Row]:
    """Select the rows of a variant, one a seed.

    Raises:
        NoSuchVariant: there are none.
    """
    found = [row for row in rows if row["variant"] == variant]
    if not found:
        names = ", ".join(dict.fromkeys(row["variant"] for row in rows))
        raise NoSuchVariant(f"no run of {variant!r} in this comparison: expected one of {names or 'none'}")
    return found


def improvement(
    rows: Sequence[Row], offline: str = "offline x1", online: str = "online reservoir", error: str = "validation_error"
) -> float:
    """Compute 1 - mean(online error) / mean(offline error), means over seeds.

    Args:
        rows: of the comparison.
        offline: name of the offline variant.
        online: name of the online variant.
        error: the error, a key of the rows.

    Raises:
        NoSuchVariant: a variant has no rows.
    """
    return 1.0 - _mean(of_variant(rows, online), error) / _mean(of_variant(rows, offline), error)


def _mean(rows: Sequence[Row], key: str) -> float:
    return float(mean(row[key] for row in rows))


def spread(rows: Sequence[Row], key: str) -> str:
    """Write mean and standard deviation over seeds, with three digits of the mean; "-" where a run has no value."""
    values = [row[key] for row in rows]
    if any(value is None for value in values):
        return "-"
    deviation = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
    return f"{mean(values):.3g}{deviation}"


COLUMNS = {
    "batches": "batches",
    "validation_error": "relative L2",
    "validation_p99": "99th percentile",
    "rollout_error": "rollout",
    "simulations": "simulations",
    "samples_unique": "samples",
    "times_seen": "times seen",
    "gigabytes": "GB",
    "samples_per_second": "samples/s",
    "wall_seconds": "wall time (s)",
}


def markdown(rows: Sequence[Row]) -> str:
    """Write a table in Markdown with a line for each variant: means ± standard deviations over seeds."""
    lines = [f"| | {' | '.join(COLUMNS.values())} |", f"|---|{'---|' * len(COLUMNS)}"]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = of_variant(rows, variant)
        cells = []
        for key in COLUMNS:
            exact = key in ("batches", "simulations", "samples_unique", "times_seen", "gigabytes")
            cells.append(f"{_mean(own, key):.4g}" if exact else spread(own, key))
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
