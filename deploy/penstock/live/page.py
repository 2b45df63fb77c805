"""The page: what a browser that opens it gets, and how it is kept up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from bokeh.document import Document

from penstock.live.curve_figures import CurveFigures
from penstock.live.field_figures import FieldFigures
from penstock.live.header import Header
from penstock.live.parameter_figures import ParameterFigures
from penstock.live.run_reader import RunReader

UPDATE_SECONDS = 2.0  # between two updates of a browser: metrics.jsonl has a line a second

_log = logging.getLogger("penstock.live")


def page_of(directory: Path, run: RunReader) -> Callable[[Document], None]:
    """Make the function that fills the document of each browser.

    Args:
        directory: the run directory.
        run: reads it, for all browsers.
    """
    template = (files("penstock.live") / "page.html").read_text(encoding="utf-8")

    def fill(document: Document) -> None:
        header, curves, parameters, fields = Header(directory), CurveFigures(), ParameterFigures(), FieldFigures()

        def update() -> None:
            try:
                run.refresh()
                for part in (header, curves, parameters, fields):
                    part.update(run)
            except Exception:  # of one update; the page goes on with the next
                _log.exception("the page could not be updated")

        for root in (header.root, parameters.root, *curves.roots.values(), *fields.roots.values()):
            document.add_root(root)
        document.template = template
        document.title = f"Penstock: {directory.name}"
        update()
        document.add_periodic_callback(update, round(1000 * UPDATE_SECONDS))

    return fill
