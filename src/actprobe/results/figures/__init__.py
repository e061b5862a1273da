"""The figures of an experiment. Each takes rows of one metric, and says so when it does not apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from actprobe.results import views
from actprobe.results.figures import features, style
from actprobe.results.figures.confusions import confusion
from actprobe.results.figures.datasets import scores_by_dataset
from actprobe.results.figures.layers import scores_by_layer
from actprobe.results.figures.leakage import leakage
from actprobe.results.figures.quivers import quiver
from actprobe.results.figures.settings import imbalance, label_noise, ood, scarcity
from actprobe.results.figures.sparse import sae_by_dataset, sae_scatter, scores_by_k
from actprobe.results.figures.training import sae_training
from actprobe.results.stats import CONFIDENCE

FIGURES: dict[str, Callable[[pd.DataFrame, float], Figure]] = {
    f.__name__: f
    for f in (
        scores_by_layer,
        scores_by_dataset,
        quiver,
        leakage,
        sae_scatter,
        sae_by_dataset,
        scores_by_k,
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

    A figure that does not apply (no numbers, no layers, no SAEs) is still written and says so. Of a
    table with several metrics each is drawn by itself, one below the other in the same file.
    """
    tables = _by_metric(table)
    for name in names:
        with matplotlib.rc_context(style.RC):
            drawn = [FIGURES[name](rows, confidence) for rows in tables]
            shown = [fig for fig in drawn if fig.axes] or drawn[:1]
            style.save_all(shown, Path(folder) / "figures" / name)


def _by_metric(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each metric that has a number, in the order of `views.parts`; at least one table."""
    metrics = dict.fromkeys(metric for _, metric in views.parts(table))
    names = list(metrics) or list(table["metric"].unique()[:1])
    return [table[table["metric"] == name] for name in names] or [table]


def write_features(
    summary: pd.DataFrame, modules: pd.DataFrame, confusions: pd.DataFrame, folder: str | Path
) -> None:
    """Draw the figures of probes of features into `{folder}/figures`."""
    drawn = {
        "representations": lambda: features.representations(summary),
        "modules": lambda: features.modules(modules),
        "confusion": lambda: confusion(confusions, summary),
    }
    with matplotlib.rc_context(style.RC):
        for name, draw in drawn.items():
            style.save(draw(), Path(folder) / "figures" / name)


def write_training(curves: pd.DataFrame, folder: str | Path) -> None:
    """Draw the training curves of SAEs (columns `saes.CURVE`) into `{folder}/figures`."""
    with matplotlib.rc_context(style.RC):
        style.save(sae_training(curves), Path(folder) / "figures" / sae_training.__name__)
