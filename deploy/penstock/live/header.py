"""The head of the page: which study, what it does, and its main figures."""

from __future__ import annotations

from html import escape
from pathlib import Path

from bokeh.models import Div

from penstock.live.run_reader import RunReader
from penstock.run import duration, number

STYLE = """
:host { color: #222; }
h1 { font-size: 22px; margin: 0 0 2px; font-weight: 600; overflow-wrap: anywhere; }
p { margin: 0 0 8px; color: #444; overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: 8px 28px; margin: 0; }
dt { font-size: 12px; color: #444; }
dd { margin: 0; font-size: 20px; font-variant-numeric: tabular-nums; }
.problem { color: #8A2C00; }
"""


class Header:
    """Text that follows the study.

    Args:
        directory: the run directory.

    Attributes:
        root: what stands on the page.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.root = Div(name="header", sizing_mode="stretch_width", stylesheets=[STYLE], disable_math=True)

    def update(self, run: RunReader) -> None:
        """Show the present state."""
        text = self._text(run)
        if text != self.root.text:
            self.root.text = text

    def _text(self, run: RunReader) -> str:
        problem = f'<p class="problem">{escape(run.problem)}</p>' if run.problem else ""
        where = escape(str(self._directory))
        if run.study is None:
            return f"<h1>Waiting for a study</h1><p>Nothing has been written to {where} yet.</p>{problem}"
        figures = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in _figures(run))
        about = f"{escape(run.phase)} · {where}" if run.phase else where
        return f"<h1>{escape(run.study.study.name)}</h1><p>{about}</p>{problem}<dl>{figures}</dl>"


def _figures(run: RunReader) -> list[tuple[str, str]]:
    assert run.study is not None
    solver = run.study.solver
    finished = sum(state == "finished" for state in run.states().values())
    out = [("simulations finished", f"{finished} of {solver.simulations + solver.validation_simulations}")]
    if (line := run.last_training) is not None:
        out += [
            ("since the first batch", duration(line["time"])),
            ("batches", f"{line['batches']:,}"),
            ("samples received", f"{line['received']:,}"),
            ("trained on", f"{line['samples_per_second']:,.0f} samples/s"),
            ("waiting for data", _share(line["stall_seconds"], line["training_seconds"])),
        ]
    if run.last_validation is not None:
        out.append(("held-out relative L2", number(run.last_validation["relative_l2"])))
    return out


def _share(stalled: float, trained: float) -> str:
    return f"{100 * min(1.0, stalled / trained):.1f} %" if trained > 0 else "-"
