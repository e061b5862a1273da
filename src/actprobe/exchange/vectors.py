"""Directions, and the scores of rows along them, as files that steering and evaluation scripts read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actprobe.base.errors import ActprobeError
from actprobe.probes.projections import STATISTICS
from actprobe.results import csvs, directions, layout
from actprobe.results.directions import RULE, Applied, load_all, load_texts
from actprobe.results.views import layer_of
from actprobe.texts import Texts

_SHOWN = 100  # characters of a question in the score files


def layer_name(site: str) -> str:
    """The site's layer as file names have it; a site without one is called by its name."""
    layer = layer_of(site)
    return str(layer) if layer is not None and layer >= 0 else site or "none"


def runs(found: Sequence[Applied]) -> dict[str, list[Applied]]:
    """The directions of each run by the name of its folder: training set, model, kind of site, position
    and method. One that was tried on several datasets is there as often."""
    made = {}
    for (train, model, kind, position, score_at, method), members in directions.runs(found).items():
        at = position if score_at == position else f"{position}@{score_at}"
        made[f"{train}.{model}.{kind}.{at}.{method}"] = members
    return made


def write(config: Mapping[str, Any], fits: Iterable[str], texts: Iterable[str]) -> None:
    """Write the directions among these fits and their scores, a folder for each run, into
    `layout.vectors`.

    fits, texts: paths of their artefacts. Besides what `write_vectors` writes:
    {dataset}/probe_stats_layer{L}.csv, with the columns of the evaluation-awareness scripts (Nguyen et
    al. 2025) and n_tokens; text as `csvs` writes it. Raises ActprobeError where a dataset to compare
    with was skipped and skipping is no longer allowed.
    """
    root, found = Path(layout.vectors(config)), load_all(fits)
    left_out = dict.fromkeys(d.row["left_out"] for d in found if d.row["left_out"])
    if left_out and config["on_bad_dataset"] == "stop":
        reasons = "\n  ".join(left_out)
        raise ActprobeError(f"these datasets to compare with cannot be used:\n  {reasons}")
    root.mkdir(parents=True, exist_ok=True)
    data = load_texts(texts, {d.row["test_set"] for d in found})
    for name, members in runs(found).items():
        write_vectors(root / name, members)
        for d in members:
            dataset, layer = d.row["test_set"], layer_name(d.row["site"])
            path = root / name / dataset / f"probe_stats_layer{layer}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            csvs.write(stats(d, data[dataset]), path, float_format="%.9g")


def by_site(members: Sequence[Applied]) -> list[Applied]:
    """One of each site, in order."""
    return list({d.row["site"]: d for d in reversed(members)}.values())[::-1]


def write_vectors(folder: Path, members: Sequence[Applied]) -> None:
    """Write vectors/layer_{L}.pt and normalized_vectors/layer_{L}.pt, float32 [1, d], and
    experiment_info.txt, the names of the evaluation-awareness scripts."""
    import torch

    for d in by_site(members):
        for kind, vector in (("vectors", d.direction), ("normalized_vectors", d.unit)):
            path = folder / kind / f"layer_{layer_name(d.row['site'])}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(torch.from_numpy(vector.astype(np.float32)[None]), path)
    (folder / "experiment_info.txt").write_text(_info(by_site(members)), encoding="utf-8")


def stats(d: Applied, rows: Texts) -> pd.DataFrame:
    """Scores of a test set's labelled rows along a direction, one row per text."""
    assert rows.label is not None
    text = rows.text[d.at]
    return pd.DataFrame(
        {
            "question_id": rows.id[d.at],
            "question": [t[:_SHOWN] + "..." * (len(t) > _SHOWN) for t in text],
            "type": np.array(rows.classes, object)[rows.label[d.at].astype(int)],
            **{f"{s}_score": d.values[:, k] for k, s in enumerate(STATISTICS)},
            "n_tokens": d.n_tokens,
        }
    )


def _info(members: Sequence[Applied]) -> str:
    first = members[0].row
    lines = {
        "Model": first["model"],
        "Layers": ", ".join(layer_name(d.row["site"]) for d in members),
        "Hook": members[-1].row["site"].partition(".")[0],
        "Position": first["position"],
        "Method": first["method"],
        "Training dataset": first["dataset"],
        "Training dataset size": first["n_train"],
        "Positive class": first["positive"],
        "Rule": RULE,
        "Keys": ", ".join(d.row["key"] for d in members),
    }
    return "".join(f"{k}: {v}\n" for k, v in lines.items())
