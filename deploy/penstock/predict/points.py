"""Reading the points of a prediction from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from penstock_client import PenstockError


class PointsError(PenstockError):
    """A file of points cannot be read."""


def read_points(path: Path, names: Sequence[str]) -> list[dict[str, float]]:
    """Read points of the parameter space.

    Args:
        path: CSV file whose first line names its columns. Columns that are no parameters are left out.
        names: the parameters.

    Returns:
        Values by name, for each row that is not empty.

    Raises:
        PointsError: the file or a parameter's column is missing, or a value is no number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets may write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise PointsError(f"--points {path} cannot be read as text: {error}") from error
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    header = [name.strip() for name in next(rows, [])]
    if missing := [name for name in names if header.count(name) != 1]:
        raise PointsError(
            f"--points {path}, line 1: expected one column for each of {', '.join(names)}; there is none, or more than "
            f"one, for {', '.join(missing)}"
        )
    points = []
    for row in rows:
        if not any(map(str.strip, row)):
            continue
        point = {}
        for name in names:
            column = header.index(name)
            text = row[column].strip() if column < len(row) else ""
            try:
                point[name] = float(text)
            except ValueError:
                raise PointsError(
                    f"--points {path}, line {rows.line_num}: {name} = {text!r}, expected a number"
                ) from None
        points.append(point)
    if not points:
        raise PointsError(f"--points {path} has no points below its first line; add at least one row")
    return points
