"""The chart of bone age against chronological age, with the range of two standard deviations of the reference table."""

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from boneage_jax.predict import reference
from boneage_jax.sex import Sex

_SIZE = (4.3, 3.5)  # inches
_LAST = 20  # years on both axes, unless the child is older; the table ends at 17, bone ages at 19
_STEP = 2  # years
_INK, _BAND, _MARK, _GRID = "#333333", "#D6E3F0", "#B23A00", "#E6E6E6"
# Text is kept as text so that it can be searched and copied; a fixed salt makes the file reproducible.
_SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "boneage", "font.size": 8.0}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


class Point(NamedTuple):
    """A bone age and its 90 % interval, at a chronological age (None if it is unknown); all in months."""

    age: float | None
    months: float
    interval: tuple[float, float] | None


def svg(points: Sequence[Point], sex: Sex) -> str:
    """Draws `figure` as an SVG element without an XML declaration, to be embedded in an HTML page."""
    with matplotlib.rc_context(_SVG):
        file = io.StringIO()
        FigureCanvasSVG(figure(points, sex)).print_svg(file, metadata=_NO_METADATA)
    text = file.getvalue()
    return text[text.index("<svg") :]


def figure(points: Sequence[Point], sex: Sex) -> Figure:
    """Draws the chart, in years.

    Args:
        points: the bone ages of one child. A bone age without a chronological age becomes a line across the chart.
        sex: selects the reference table.
    """
    chart = Figure(figsize=_SIZE, layout="constrained")
    axes = chart.add_subplot()
    _prepare(axes, _end(points))
    _draw_reference(axes, sex)
    _draw_points(axes, [point for point in points if point.age is not None])
    for point in points:
        if point.age is None:
            _draw_line(axes, point)
    axes.legend(loc="upper left", frameon=False, handlelength=1.6)
    return chart


def _end(points: Sequence[Point]) -> int:
    """The end of the axis of chronological ages, in years: a multiple of the step after the highest age."""
    highest = max((point.age / 12 for point in points if point.age is not None), default=0.0)
    return max(_LAST, (int(highest) // _STEP + 1) * _STEP)


def _prepare(axes: Axes, end: int) -> None:
    axes.set(xlim=(0, end), ylim=(0, _LAST))
    axes.set(xlabel="Chronological age (years)", ylabel="Bone age (years)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MultipleLocator(_STEP * math.ceil(end / 40)))  # an adult's axis has fewer labels
    axes.yaxis.set_major_locator(MultipleLocator(_STEP))


def _draw_reference(axes: Axes, sex: Sex) -> None:
    band = reference.band(sex)
    label = f"\N{PLUS-MINUS SIGN}{reference.BORDER:.0f} SD of healthy children"
    axes.fill_between(band.ages / 12, band.lowest / 12, band.highest / 12, color=_BAND, linewidth=0, label=label)
    ends = band.ages[[0, -1]] / 12
    axes.plot(ends, ends, color=_INK, linewidth=0.8, linestyle="--", label="bone age = age")


def _draw_points(axes: Axes, points: Sequence[Point]) -> None:
    if not points:
        return
    values = np.array([(point.age, point.months, *(point.interval or (np.nan, np.nan))) for point in points])
    ages, months, low, high = values[np.argsort(values[:, 0], kind="stable")].T / 12
    axes.vlines(ages, low, high, color=_MARK, linewidth=1.4)
    label = "visits, 90 % intervals" if len(points) > 1 else "this child, 90 % interval"
    axes.plot(ages, months, color=_MARK, marker="o", markersize=4.5, linewidth=1.0, label=label)


def _draw_line(axes: Axes, point: Point) -> None:
    if point.interval is not None:
        axes.axhspan(*(value / 12 for value in point.interval), color=_MARK, alpha=0.15, linewidth=0)
    axes.axhline(point.months / 12, color=_MARK, linewidth=1.2, label="bone age; age unknown")
