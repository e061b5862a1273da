"""What the figures show: views of the tidy table, colours, and axes of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from actprobe.results.directions import RUN, Applied, rank

Found = Mapping[str, Applied]  # key -> direction and scores

LOOKS = {
    "mean_difference": ("#0072B2", "o"),
    "logreg": ("#D55E00", "s"),
    "lda": ("#009E73", "D"),
}
MOST_TICKS = 16
_MOST_VIEWS = 6
_VIEW = [*(c for c in RUN if c != "method"), "dataset"]


def views(made: pd.DataFrame) -> tuple[list[tuple[list[str], pd.DataFrame]], str]:
    """The rows of each view (one run without its method, on one validation set) with the parts of
    its title, and a line that says so when there are more."""
    groups = list(made[(made["source"] != "") & (made["reason"] == "")].groupby(_VIEW, sort=False))
    shown = groups[:_MOST_VIEWS]
    more = f"\nThe first {len(shown)} of {len(groups):,} views." if len(groups) > len(shown) else ""
    return [(_title(view), rows) for view, rows in shown], more


def _title(view: Sequence[str]) -> list[str]:
    train, model, kind, position, score_at, dataset = view
    return [f"{train} → {dataset}", model, kind, read_at(position, score_at)]


def read_at(position: str, score_at: str) -> str:
    """Where the direction was found, and where it is scored if that is elsewhere."""
    return position if score_at == position else f"{position}, scored at {score_at}"


def methods(made: pd.DataFrame) -> list[str]:
    """The methods in the table, in their usual order."""
    return sorted(set(made.loc[made["source"] != "", "method"]), key=rank)


def look(method: str) -> tuple[str, str]:
    """Colour and marker of a method."""
    return LOOKS.get(method, ("#7F7F7F", "^"))


def layer_name(layer: float) -> str:
    """ "embed", the number, or nothing for a site without one."""
    return "embed" if layer < 0 else "" if pd.isna(layer) else f"{layer:.0f}"


def layer_axis(ax: Axes, layers: Sequence[float]) -> None:
    """Ticks at the layers, or at round numbers where there are many."""
    ax.set_xlabel("layer")
    if len(layers) <= MOST_TICKS:
        ax.set_xticks(layers, [layer_name(x) for x in layers])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
