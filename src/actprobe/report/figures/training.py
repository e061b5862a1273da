"""How the SAEs that were trained here got to their weights."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from actprobe.report.figures import style


def sae_training(curves: pd.DataFrame) -> Figure:
    """Fraction of variance unexplained by tokens seen, in training and held out, a line per SAE.

    curves: columns `saes.CURVE`.
    """
    title = "Training of the SAEs"
    if curves.empty:
        return style.nothing(title, "No SAE that was trained here is in the cache.")
    names, more = style.first(dict.fromkeys(curves["sae"]), style.LABELS, "SAEs")
    subtitle = "Fraction of variance unexplained: solid on held-out tokens, dotted in training."
    fig = style.figure(title, subtitle + more, 6.4, 3.2, names)
    ax = fig.subplots()
    for name, (colour, marker) in style.looks(names).items():
        mine = curves[curves["sae"] == name]
        ax.plot(
            mine["tokens"],
            mine["fvu_held_out"],
            label=name,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.4,
        )
        ax.plot(mine["tokens"], mine["fvu_train"], color=colour, linewidth=0.9, linestyle=":")
    ax.set(xlabel="tokens seen", ylabel="fraction of variance unexplained", ylim=(0, None))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.grid(axis="y")
    style.legend(fig, names)
    return fig
