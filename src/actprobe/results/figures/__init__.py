"""The figures of an experiment. Each takes a tidy table and says so when it does not apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from actprobe.results.figures import style
from actprobe.results.figures.datasets import auc_by_dataset
from actprobe.results.figures.layers import auc_by_layer
from actprobe.results.figures.leakage import leakage
from actprobe.results.figures.quivers import quiver
from actprobe.results.figures.settings import imbalance, label_noise, ood, scarcity
from actprobe.results.figures.sparse import auc_by_k, sae_by_dataset, sae_scatter
from actprobe.results.figures.training import sae_training
from actprobe.results.stats import CONFIDENCE

FIGURES: dict[str, Callable[[pd.DataFrame, float], Figure]] = {
    f.__name__: f
    for f in (
        auc_by_layer,
        auc_by_dataset,
        quiver,
        leakage,
        sae_scatter,
        sae_by_dataset,
        auc_by_k,
        scarcity,
        imbalance,
        label_noise,
        ood,
    )
}


def write_figures(
    table: pd.DataFrame,
    folder: str | Path,
    names: Iterable[str] = FIGURES,
    confidence: float = CONFIDENCE,
) -> None:
    """Draw these figures of a tidy table into `{folder}/figures` as SVG and PNG.

    A figure that does not apply (no numbers, no layers, no SAEs) is still written and says so.
    """
    for name in names:
        with matplotlib.rc_context(style.RC):
            fig = FIGURES[name](table, confidence)
            style.save(fig, Path(folder) / "figures" / name)


def write_training(curves: pd.DataFrame, folder: str | Path) -> None:
    """Draw the training curves of SAEs (columns `saes.CURVE`) into `{folder}/figures`."""
    with matplotlib.rc_context(style.RC):
        style.save(sae_training(curves), Path(folder) / "figures" / sae_training.__name__)
