"""What cannot be read in a drawn figure: text outside its canvas, and text over other text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from actprobe.report.figures import style

PIXEL = 1.0  # what two boxes may share: they are a little larger than their ink


def faults(fig: Figure) -> list[str]:
    """What is wrong with the text of a figure as it would be saved, in words."""
    with matplotlib.rc_context(style.RC):
        fig.draw_without_rendering()
        boxes = [(t, t.get_window_extent()) for t in texts(fig)]
    return [*_outside(fig, boxes), *_over_others(boxes), *_alike(fig)]


def texts(fig: Figure) -> Iterator[Text]:
    """All text that is drawn: of the figure, its axes, their ticks and legends."""
    ticks = {id(t) for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for t in _all_of(axis)}
    seen = [t for t in fig.findobj(Text) if id(t) not in ticks]
    for ax in fig.axes:
        if ax.get_visible() and ax.axison:
            seen += [*_tick_labels(ax, "x"), *_tick_labels(ax, "y")]
    hidden = [ax for ax in fig.axes if not ax.get_visible()]
    yield from (
        t for t in seen if t.get_visible() and t.get_text().strip() and t.axes not in hidden
    )


def _all_of(axis) -> list[Text]:
    every = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [label for tick in every for label in (tick.label1, tick.label2)]


def _tick_labels(ax: Axes, which: str) -> list[Text]:
    """The labels of the ticks that are inside the axis."""
    axis = getattr(ax, f"{which}axis")
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * max(high - low, 1e-9)
    inside = [
        t
        for t in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        if low - slack <= t.get_loc() <= high + slack
    ]
    return [
        label for t in inside for label in (t.label1, t.label2) if label.get_visible()
    ] if axis.get_visible() else []  # fmt: skip


def _outside(fig: Figure, boxes: list[tuple[Text, Bbox]]) -> list[str]:
    canvas = fig.bbox.padded(PIXEL)
    return [
        f"outside the canvas: {t.get_text()!r} at {box.extents.round()} of {fig.bbox.extents}"
        for t, box in boxes
        if not (canvas.contains(*box.min) and canvas.contains(*box.max))
    ]


def _over_others(boxes: list[tuple[Text, Bbox]]) -> list[str]:
    found = []
    for (a, one), (b, other) in combinations(boxes, 2):
        if _overlap(a, one, b, other):
            found.append(f"{a.get_text()!r} over {b.get_text()!r}")
    return found


def _overlap(a: Text, one: Bbox, b: Text, other: Bbox) -> bool:
    if a.get_rotation() % 90 and a.get_rotation() == b.get_rotation():
        angle = np.deg2rad(a.get_rotation())
        dx, dy = one.max - other.max
        across = abs(dx * np.sin(angle) - dy * np.cos(angle))
        along = dx * np.cos(angle) + dy * np.sin(angle)
        reach = (other if along < 0 else one).width / np.cos(angle)
        return across < a.get_fontsize() * 0.9 and abs(along) < reach
    both = Bbox.intersection(one, other)
    return both is not None and min(both.width, both.height) > 2 * PIXEL


def _alike(fig: Figure) -> list[str]:
    """Named lines of a figure that are called the same."""
    found = []
    for ax in (a for a in fig.axes if a.get_visible() and a.axison):
        names = [t.get_text() for t in _tick_labels(ax, "y") if t.get_text()]
        found += [f"two lines are called {n!r}" for n in set(names) if names.count(n) > 1]
    return found
