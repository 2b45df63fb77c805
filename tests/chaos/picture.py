"""The picture of a soak: resident memory of the server's processes over time, and when the server was restarted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock_server.plots.style import BLUE, ORANGE, figure

COLOURS = {"rank": BLUE, "coordinator": ORANGE}


def draw_memory(memory: list[dict[str, Any]], schedule: list[dict[str, Any]], path: Path) -> Path:
    """memory: looks of `Soak.watch_memory`. schedule: the faults. Returns `path`."""
    with figure(path, 9.0, 3.6) as drawing:
        axis = drawing.subplots()
        for kind, colour in COLOURS.items():
            looks = [look for look in memory if kind in look]
            axis.plot(
                [x["time"] for x in looks],
                [x[kind] / 2**20 for x in looks],
                ".",
                color=colour,
                label=kind,
                markersize=3,
            )
        for number, one in enumerate(
            fault for fault in schedule if fault["done"] and fault["fault"].startswith("kill_")
        ):
            if "worker" not in one["fault"]:
                axis.axvline(
                    one["time"], color="0.8", linewidth=0.8, zorder=0, label="" if number else "server restarted"
                )
        axis.set_xlabel("seconds")
        axis.set_ylabel("resident memory (MiB)")
        axis.set_ylim(bottom=0)
        axis.legend()
    return path
