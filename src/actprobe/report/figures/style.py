"""One look for all figures: colours, markers, and byte-deterministic SVG and PNG files."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import image
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from actprobe.probes.metrics import Metric
from actprobe.report.figures import words

# Okabe & Ito (2008), distinguishable with every common colour vision; markers differ as well.
_LOOKS = {
    "logreg": ("#0072B2", "o"),
    "pca": ("#E69F00", "s"),
    "knn": ("#009E73", "D"),
    "xgboost": ("#D55E00", "^"),
    "mlp": ("#CC79A7", "v"),
    "attention": ("#56B4E9", "P"),
}
_OTHERS = [
    ("#000000", "X"),
    ("#882255", "h"),
    ("#117733", "<"),
    ("#7F7F7F", ">"),
    ("#8C6D31", "p"),
    ("#332288", "*"),
]
NOTHING = "nothing-to-show"  # id of a figure in its SVG file
MANY = len(_OTHERS)  # SAEs that one figure can tell apart
PANELS = 12  # panels of one figure
ROWS = 120  # lines of one figure, each with its name
LABELS = MANY**2  # methods with looks of their own
DIVERGING = "PuOr"
_PIXELS = 16_000  # of the longer side of a PNG file
_TITLE = 12.0  # points
_MARGIN = 0.05  # inches

RC: dict[Any, Any] = {
    "svg.hashsalt": "actprobe",  # element ids depend on the content alone
    "svg.fonttype": "path",  # looks the same where the font is missing
    "text.parse_math": False,  # a name may hold dollars
    "font.size": words.SIZE,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

T = TypeVar("T")


def first(found: Iterable[T], most: int, what: str) -> tuple[list[T], str]:
    """At most so many of them, and a sentence that says so where there are more."""
    every = list(found)
    more = f" {most:,} of {len(every):,} {what}." if len(every) > most else ""
    return every[:most], more


def figure(
    title: str, subtitle: str, width: float, height: float, legend: Sequence[str] = ()
) -> Figure:
    """An empty figure with a title, smaller lines below it and room for the legend of these names.

    `height` (inches) is that of the axes; the header's comes on top. Long lines are wrapped. No
    pyplot, no global state.
    """
    heads = words.lines(title, width - 0.2, _TITLE, "bold")
    lines = [w for line in subtitle.split("\n") for w in words.lines(line, width - 0.25)]
    rows = len(_rows(legend, width))
    top = 0.08 + 0.22 * len(heads)
    header = top + 0.06 + 0.165 * len(lines) + 0.21 * rows + 0.06 * bool(rows)
    below = ConstrainedLayoutEngine(rect=(0, 0, 1, height / (height + header)))
    fig = Figure(figsize=(width, height + header), layout=below)
    for inches, text, look in (
        (0.08, "\n".join(heads), {"fontsize": _TITLE, "fontweight": "bold"}),
        (top + 0.04, "\n".join(lines), {"color": "#555555"}),
    ):
        at = 1 - inches / (height + header)
        fig.text(0.1 / width, at, text, va="top", **look)
    return fig


def _rows(names: Sequence[str], width: float) -> list[list[tuple[str, str]]]:
    """Legend rows: the names in order with what is shown of each, as many in a row as fit."""
    shown = words.fitted(names, width - 0.9)
    rows: list[list[tuple[str, str]]] = []
    room = 0.0
    for name in names:
        need = 0.62 + words.width(shown[name])
        if need > room:
            rows.append([])
            room = width - 0.1
        rows[-1].append((name, shown[name]))
        room -= need
    return rows


def legend(fig: Figure, names: Sequence[str]) -> None:
    """Lay these labels out in the rows that `figure` left for them."""
    drawn: dict[str, Artist] = {}
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            drawn.setdefault(label, handle)
    width, height = fig.get_size_inches()
    engine = fig.get_layout_engine()
    assert engine is not None
    top = engine.get()["rect"][3]
    for i, row in enumerate(reversed(_rows(names, width))):
        there = [(drawn[name], shown) for name, shown in row if name in drawn]
        if not there:
            continue
        fig.legend(
            *zip(*there, strict=True),
            loc="lower left",
            bbox_to_anchor=(0.04 / width, top + 0.21 * i / height),
            ncols=len(there),
            columnspacing=1.4,
            handletextpad=0.4,
            borderaxespad=0,
        )


def looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method; unknown ones get the spare looks in the given order."""
    found, spare = {}, 0
    for name in names:
        if name in _LOOKS:
            found[name] = _LOOKS[name]
            continue
        turn, i = divmod(spare, MANY)
        found[name] = (_OTHERS[i][0], _OTHERS[(i + turn) % MANY][1])
        spare += 1
    return found


def grid(fig: Figure, n: int, across: int, share: bool = True) -> list[Axes]:
    """`n` axes, `across` in a row, that share their scales unless told otherwise."""
    axes = fig.subplots(math.ceil(n / across), across, squeeze=False, sharey=share)
    flat = list(axes.flat)
    for ax in flat[n:]:
        ax.set_visible(False)
    return flat[:n]


def name_rows(
    ax: Axes, at: Sequence[float], names: Sequence[str], inches: float, size: float
) -> None:
    """Names beside the lines of a figure, as much of each as fits."""
    shown = words.fitted(names, inches, size)
    ax.set_yticks(at, [shown[n] for n in names], fontsize=size)
    ax.tick_params(axis="y", length=0)


def head(ax: Axes, parts: Sequence[str], inches: float, size: float = 9.5) -> None:
    """The title of a panel of this width."""
    ax.set_title(words.heading(parts, inches, size), fontsize=size)


def cells(ax: Axes, values: NDArray[Any], form: str, dark: float, size: float) -> None:
    """The numbers of a heat map in its cells, white where their colour is darker than that of `dark`."""
    for (y, x), v in np.ndenumerate(values):
        colour = "white" if abs(v) > dark else "#333333"
        text = "" if np.isnan(v) else form.format(v)
        ax.text(x, y, text, ha="center", va="center", fontsize=size, color=colour)


FLOOR = -1.0  # below which a metric without a lower end is not drawn


def reference(ax: Axes, axis: str, level: float) -> None:
    """A broken line at this level of an axis ("x", "y") if it is in sight."""
    low, high = sorted(getattr(ax, f"get_{axis}lim")())
    if ax.lines and low < level < high:
        line = ax.axvline if axis == "x" else ax.axhline
        line(level, color="#888888", lw=0.8, ls=(0, (4, 3)), zorder=1)


def cut(ax: Axes, axis: str, metric: Metric) -> None:
    """Begin the axis of a metric at FLOOR where it has no lower end and goes below."""
    low, _ = getattr(ax, f"get_{axis}lim")()
    if metric.low == -math.inf and low < FLOOR:
        getattr(ax, f"set_{axis}lim")(FLOOR, None)


def cut_off(values: pd.Series, metric: Metric) -> str:
    """A sentence that some of these values are below what `cut` leaves, or none."""
    below = int((values < FLOOR).sum()) if metric.low == -math.inf else 0
    return f" Values below {FLOOR:g} are outside of the figure ({below:,})." if below else ""


def nothing(title: str, why: str) -> Figure:
    """A small figure that says why there is nothing to show; the page leaves it out."""
    fig = figure(title, why, 6, 0.3)
    fig.set_gid(NOTHING)
    return fig


def save(fig: Figure, stem: Path) -> None:
    """Write `{stem}.svg` and `{stem}.png` (200 dpi, fewer where it is very large) without dates or
    versions in them. A canvas that cannot hold all its text grows."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(RC):
        box = canvas(fig)
        dpi = min(200, int(_PIXELS / max(box.width, box.height)))
        fig.savefig(
            stem.with_suffix(".svg"), bbox_inches=box, metadata={"Date": None, "Creator": None}
        )
        fig.savefig(stem.with_suffix(".png"), bbox_inches=box, dpi=dpi, metadata={"Software": None})


def save_all(figs: Sequence[Figure], stem: Path) -> None:
    """Write these figures into one SVG and one PNG file, one below the other."""
    if len(figs) == 1:
        save(figs[0], stem)
        return
    stem.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stems = [Path(folder) / f"{stem.name}-{i}" for i in range(len(figs))]
        for fig, own in zip(figs, stems, strict=True):
            save(fig, own)
        svgs = [own.with_suffix(".svg").read_text(encoding="utf-8") for own in stems]
        stem.with_suffix(".svg").write_text(_below_each_other(svgs), encoding="utf-8")
        images = [image.imread(own.with_suffix(".png")) for own in stems]
    width = max(i.shape[1] for i in images)
    wide = [
        np.pad(i, ((0, 0), (0, width - i.shape[1]), (0, 0)), constant_values=1.0) for i in images
    ]
    unsigned: Any = {"Software": None}
    image.imsave(stem.with_suffix(".png"), np.concatenate(wide), metadata=unsigned)


_SVG = re.compile(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"[^>]*>')
_NAMED = re.compile(r'(\bid="|href="#|url\(#)')


def _below_each_other(svgs: Sequence[str]) -> str:
    """One SVG file of several; their elements keep names of their own."""
    width = height = 0.0
    inside = []
    for i, text in enumerate(svgs):
        found = _SVG.search(text)
        assert found, "an SVG file of matplotlib says its size"
        w, h = map(float, found.groups())
        own = _NAMED.sub(rf"\g<1>{i}-", text[found.end() :])
        inside.append(f'<svg x="0" y="{height:g}" width="{w:g}" height="{h:g}">{own}')
        width, height = max(width, w), height + h
    return (
        '<?xml version="1.0" encoding="utf-8" standalone="no"?>\n'
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width:g}pt" height="{height:g}pt" viewBox="0 0 {width:g} {height:g}" version="1.1">\n'
        + "".join(inside)
        + "</svg>\n"
    )


def canvas(fig: Figure) -> Bbox:
    """The figure's box in inches, moved out on each side where an artist reaches beyond it."""
    for _ in range(2):  # titles move once the panels have their places
        fig.draw_without_rendering()
    own, found = fig.bbox_inches, fig.get_tightbbox()
    low = [o if f >= o else f - _MARGIN for o, f in zip(own.min, found.min, strict=True)]
    high = [o if f <= o else f + _MARGIN for o, f in zip(own.max, found.max, strict=True)]
    return Bbox([low, high])
