"""The common look of all figures of the page."""

from __future__ import annotations

from typing import Any

from bokeh.models import DataRange1d
from bokeh.palettes import Magma256, RdBu11, Viridis256, interp_palette
from bokeh.plotting import figure

# Okabe and Ito (2008), as in the pictures of `penstock plot`: distinguishable with colour vision deficiencies.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY, SKY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#6E6E6E", "#56B4E9",
)  # fmt: skip
TEXT, LINES = "#222222", "#E4E4E4"
STATE_COLOURS = {"waiting": "#B8B8B8", "running": ORANGE, "finished": BLUE, "failed": RED}
VALUES = Viridis256
SIGNED = interp_palette(RdBu11, 256)
UNSIGNED = tuple(reversed(Magma256))
TOOLS = "pan,box_zoom,wheel_zoom,reset"


def make_figure(title: str, x_label: str, y_label: str, *, height: int = 280, **more: Any) -> Any:
    """Make a figure as wide as its place on the page.

    Args:
        title: above it.
        x_label: with the unit, where it is known.
        y_label: with the unit, where it is known.
        height: in pixels.
        more: for Bokeh's `figure`.
    """
    tools = more.pop("tools", TOOLS)
    made = figure(
        title=title,
        x_axis_label=x_label,
        y_axis_label=y_label,
        height=height,
        min_width=200,
        sizing_mode="stretch_width",
        tools=tools,
        active_drag=None,  # a finger that moves over the figure scrolls the page
        active_scroll=None,
        toolbar_location="above",
        **more,
    )
    made.toolbar.logo = None
    made.toolbar.autohide = True
    made.outline_line_color = None
    made.min_border_right = 12
    made.title.text_color = TEXT
    made.title.text_font_size = "14px"
    for axis in (*made.xaxis, *made.yaxis):
        axis.axis_label_text_color = axis.major_label_text_color = TEXT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "12px"
        axis.axis_line_color = axis.major_tick_line_color = "#444444"
        axis.minor_tick_line_color = None
    for grid in (*made.xgrid, *made.ygrid):
        grid.grid_line_color = LINES
    return made


def place_legend(made: Any, *, above: bool = False) -> None:
    """Style the legend of a figure that has labelled curves.

    Args:
        made: the figure.
        above: whether it stands above the curves, side by side, rather than in the upper right corner, which is free
            where curves fall.
    """
    legend = made.legend[0]
    legend.location = "top_right"
    legend.background_fill_alpha = 0.75
    legend.border_line_color = None
    legend.label_text_color = TEXT
    legend.label_text_font_size = "12px"
    legend.padding = legend.margin = 4
    legend.spacing = 0
    if above:
        legend.orientation, legend.location, legend.spacing = "horizontal", "top_left", 12
        made.add_layout(legend, "above")


def from_zero() -> DataRange1d:
    """Make a range of y that begins at zero."""
    return DataRange1d(start=0)


__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "LINES",
    "ORANGE",
    "PURPLE",
    "RED",
    "SIGNED",
    "SKY",
    "STATE_COLOURS",
    "TEXT",
    "UNSIGNED",
    "VALUES",
    "from_zero",
    "make_figure",
    "place_legend",
]
