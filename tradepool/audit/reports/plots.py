"""Plots of the page: static SVG without a style of its own, so that the page's colours are theirs.

pygal places axes, guides and lines; what it adds for scripts, and links to its site, is taken out again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import pygal
from markupsafe import Markup
from pygal.style import Style

from tradepool.audit.reports.course import Point, Series
from tradepool.printable import printable

__all__ = ["Plot", "Span", "plot"]

WIDTH, HEIGHT = 560, 250
TICKS_MAX = 6
TIMES_MAX = 4
"""Stretches between the times below a plot: so many times in their longest form stand beside each other."""
_FONT_SIZE = 16
"""What room is left for; on a narrow screen the page writes this large."""
_SECOND_US = 1_000_000
_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S
_TIME_STEPS_S = (
    *(1, 2, 5, 10, 30, 60, 300, 900, 1800, _HOUR_S, 2 * _HOUR_S, 3 * _HOUR_S, 6 * _HOUR_S, 12 * _HOUR_S),
    *(_DAY_S, 2 * _DAY_S, 5 * _DAY_S, 10 * _DAY_S, 30 * _DAY_S, 90 * _DAY_S, 365 * _DAY_S),
)
_TIME_FORMS = ((300, "%H:%M:%S"), (_DAY_S, "%H:%M"), (3 * _DAY_S, "%d %b %Hh"))
"""Up to how many seconds a plot's times are written how."""
_NICE = (1, 2, 5, 10)
_TAKEN_OUT = {"script", "style", "title", "desc", "metadata"}
_LAYOUT = Style(label_font_size=_FONT_SIZE, major_label_font_size=_FONT_SIZE)

# What pygal adds to Python's imports, for plugins of its own, makes each later import warn.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]
ET.register_namespace("", "http://www.w3.org/2000/svg")


class Span(NamedTuple):
    """The time that a plot shows, µs."""

    start: int
    end: int

    @property
    def is_a_moment(self) -> bool:
        """Whether there is nothing to draw a line over."""
        return self.end <= self.start


class Plot(NamedTuple):
    """A plot, and what stands beside it."""

    title: str
    unit: str
    series: tuple[Series, ...]
    svg: Markup
    format: Callable[[float], str]
    """A value of its in words."""


def plot(
    title: str,
    unit: str,
    series: Sequence[Series],
    span: Span,
    *,
    is_stepped: bool = False,
    is_logarithmic: bool = False,
) -> Plot:
    """The lines of `series` over `span`, which is no moment; no picture where there are none.

    Values stay from one point to the next if `is_stepped`. A logarithmic plot has no room for 0.
    """
    if not series:
        return Plot(title, unit, (), Markup(), _in_words)
    values = [value for one in series for _, value in one.points]
    ticks = _decades(values) if is_logarithmic else _nice(min([0.0, *values]), max([0.0, *values]))
    chart = pygal.XY(
        style=_LAYOUT,
        css=[],
        js=[],
        width=WIDTH,
        height=HEIGHT,
        margin=8,
        margin_left=16,
        margin_right=18,
        show_legend=False,
        show_dots=all(len(one.points) < 2 for one in series),  # noqa: PLR2004 - one point makes no line
        dots_size=3,
        logarithmic=is_logarithmic,
        xrange=(span.start / _SECOND_US, span.end / _SECOND_US),
        # At the very top of a logarithmic plot pygal would leave the last tick out.
        range=(ticks[0], ticks[-1] * (1.02 if is_logarithmic else 1)),
        x_labels=_times(span),
        y_labels=ticks,
        x_value_formatter=_time_format(span),
        value_formatter=_in_words,
        truncate_label=-1,
    )
    for one in series:
        points = list(_steps(one.points, span)) if is_stepped else one.points
        chart.add("", [(at / _SECOND_US, value) for at, value in points])
    return Plot(
        title, unit, tuple(series), _svg(chart.render_tree(), printable(f"{title}, {unit}")), _in_words
    )


def _svg(root: Any, label: str) -> Markup:
    """The picture alone; pygal has escaped what it wrote into it."""
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.rpartition("}")[2] in _TAKEN_OUT:
                parent.remove(child)
    root.attrib.pop("id", None)
    root.set("role", "img")
    root.set("aria-label", label)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 - an XML writer made it


def _steps(points: Sequence[Point], span: Span) -> Iterator[Point]:
    yield points[0]
    for (_, before), (at, value) in pairwise(points):
        yield at, before
        yield at, value
    yield span.end, points[-1][1]


def _times(span: Span) -> list[float]:
    """Round times within the span, s."""
    start, end = span.start / _SECOND_US, span.end / _SECOND_US
    step = next((step for step in _TIME_STEPS_S if (end - start) / step <= TIMES_MAX), _TIME_STEPS_S[-1])
    first = math.ceil(start / step)
    return [float(number * step) for number in range(first, math.floor(end / step) + 1)]


def _time_format(span: Span) -> Callable[[float], str]:
    seconds = (span.end - span.start) / _SECOND_US
    form = next((form for longest, form in _TIME_FORMS if seconds <= longest), "%d %b")
    return lambda at: datetime.fromtimestamp(at, UTC).strftime(form)


def _nice(low: float, high: float) -> list[float]:
    """Round values from at most `low` to at least `high`."""
    rough = (high - low or 1.0) / (TICKS_MAX - 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in _NICE if unit * factor >= rough)
    return [number * step for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _decades(values: Sequence[float]) -> list[float]:
    positive = [value for value in values if value > 0] or [1.0]
    first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _in_words(value: float) -> str:
    """Up to four digits, thousands set apart; whole numbers as such."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}".rstrip("0").rstrip(".")
