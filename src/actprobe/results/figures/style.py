"""One look for all figures: colours, markers, and byte-deterministic SVG and PNG files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

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
MANY = len(_OTHERS)  # SAEs that one figure can tell apart
DIVERGING = "PuOr"

RC: dict[Any, Any] = {
    "svg.hashsalt": "actprobe",  # element ids depend on the content alone
    "svg.fonttype": "path",  # looks the same where the font is missing
    "font.size": 9,
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


def figure(
    title: str, subtitle: str, width: float, height: float, legend: Sequence[str] = ()
) -> Figure:
    """An empty figure with a title, smaller lines below it and room for the legend of these names.

    `height` (inches) is that of the axes; the header's comes on top. Long lines are wrapped. No
    pyplot, no global state.
    """
    lines = [w for line in subtitle.split("\n") for w in wrap(line, int(14.8 * width)) or [""]]
    rows = len(_rows(legend, width))
    header = 0.36 + 0.165 * len(lines) + 0.21 * rows + 0.06 * bool(rows)
    below = ConstrainedLayoutEngine(rect=(0, 0, 1, height / (height + header)))
    fig = Figure(figsize=(width, height + header), layout=below)
    for inches, words, look in (
        (0.08, title, {"fontsize": 12, "fontweight": "bold"}),
        (0.34, "\n".join(lines), {"color": "#555555"}),
    ):
        at = 1 - inches / (height + header)
        fig.text(0.1 / width, at, words, va="top", **look)
    return fig


def _rows(names: Sequence[str], width: float) -> list[list[str]]:
    """Legend rows: the names in order, as many in a row as `width` inches hold."""
    rows: list[list[str]] = []
    room = 0.0
    for name in names:
        need = 0.6 + 0.066 * len(name)
        if need > room:
            rows.append([])
            room = width
        rows[-1].append(name)
        room -= need
    return rows


def legend(fig: Figure, names: Sequence[str]) -> None:
    """Lay these labels out in the rows that `figure` left for them."""
    shown: dict[str, Artist] = {}
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    width, height = fig.get_size_inches()
    engine = fig.get_layout_engine()
    assert engine is not None
    top = engine.get()["rect"][3]
    for i, row in enumerate(reversed(_rows(names, width))):
        fig.legend(
            [shown[n] for n in row],
            row,
            loc="lower left",
            bbox_to_anchor=(0.04 / width, top + 0.21 * i / height),
            ncols=len(row),
            columnspacing=1.4,
            handletextpad=0.4,
            borderaxespad=0,
        )


def looks(names: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method; unknown ones get the spare looks in the given order."""
    spare = iter(_OTHERS * len(names))
    return {n: _LOOKS[n] if n in _LOOKS else next(spare) for n in names}


def grid(fig: Figure, n: int, across: int) -> list[Axes]:
    """`n` axes, `across` in a row, that share their scales."""
    axes = fig.subplots(math.ceil(n / across), across, squeeze=False, sharey=True)
    flat = list(axes.flat)
    for ax in flat[n:]:
        ax.set_visible(False)
    return flat[:n]


def nothing(title: str, why: str) -> Figure:
    """A small figure that says why there is nothing to show."""
    return figure(title, why, 6, 0.3)


def save(fig: Figure, stem: Path) -> None:
    """Write `{stem}.svg` and `{stem}.png` (200 dpi) without dates or versions in them."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(RC):
        fig.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
        fig.savefig(stem.with_suffix(".png"), dpi=200, metadata={"Software": None})


def layer_of(site: str) -> int | None:
    """The layer number in a site ("resid_post.3" -> 3), -1 for the embedding, None otherwise."""
    if site == "embed":
        return -1
    found = re.search(r"\.(\d+)$", site)
    return int(found[1]) if found else None
