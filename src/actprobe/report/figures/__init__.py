"""The figures of an experiment. Each says so when it does not apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from actprobe.report.figures import curves, directions, features, style
from actprobe.report.figures.confusions import confusion
from actprobe.report.figures.datasets import scores_by_dataset
from actprobe.report.figures.layers import scores_by_layer
from actprobe.report.figures.leakage import leakage
from actprobe.report.figures.quivers import quiver
from actprobe.report.figures.settings import imbalance, label_noise, ood, scarcity
from actprobe.report.figures.sparse import sae_by_dataset, sae_scatter, scores_by_k
from actprobe.report.figures.training import sae_training
from actprobe.report.figures.transfer import transfer
from actprobe.results import views
from actprobe.results.directions import Applied, cosines
from actprobe.results.make import Written
from actprobe.results.transfer import chosen

# Of rows of texts, all of one metric.
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


def write(
    found: Written,
    fits: Sequence[Applied],
    folder: Path,
    names: Iterable[str],
    confidence: float,
) -> None:
    """Draw these figures of the written tables into `folder` as SVG and PNG.

    A figure that does not apply (no numbers, no layers, no SAEs) is still written and says so. Of a
    table with several metrics each is drawn by itself, one below the other in the same file.
    """
    of_key = {d.row["key"]: d for d in fits}
    others: dict[str, Callable[[], Figure]] = {
        "confusion": lambda: confusion(found["confusion"]),
        "transfer": lambda: transfer(chosen(found["transfer"], found.probes)),
        "representations": lambda: features.representations(found["representations"]),
        "modules": lambda: features.modules(found["modules"]),
        "sae_training": lambda: sae_training(found["sae_training"]),
        "contrastive_layers": lambda: directions.by_layer(found["directions"]),
        "contrastive_roc": lambda: curves.roc(found["directions"], of_key),
        "contrastive_scores": lambda: curves.scores(found["directions"], of_key),
        "contrastive_cosines": lambda: directions.cosine_map(cosines(fits)),
    }
    tables = _by_metric(found.of_texts)
    with matplotlib.rc_context(style.RC):
        for name in names:
            if name in others:
                style.save(others[name](), folder / name)
                continue
            drawn = [FIGURES[name](rows, confidence) for rows in tables]
            style.save_all([fig for fig in drawn if fig.axes] or drawn[:1], folder / name)


def _by_metric(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each metric that has a number, in the order of `views.parts`; at least one table."""
    metrics = dict.fromkeys(metric for _, metric in views.parts(table))
    names = list(metrics) or list(table["metric"].unique()[:1])
    return [table[table["metric"] == name] for name in names] or [table]
