"""Vectors and scores as files that steering and evaluation scripts read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from actprobe import csvs, texts
from actprobe.contrastive.artefact import Directions
from actprobe.contrastive.scores import STATISTICS
from actprobe.contrastive.tables import RULE, kinds
from actprobe.results.figures.style import layer_of
from actprobe.texts import Texts

_SHOWN = 100  # characters of a question in the score files


def run_name(d: Directions, kind: str, method: str) -> str:
    """Folder of one run: training set, model, kind of site, position and method."""
    f = d.facts
    at = f["position"] if f["score_at"] == f["position"] else f"{f['position']}@{f['score_at']}"
    return f"{f['train']}.{f['model']}.{kind}.{at}.{method}"


def layer_name(site: str) -> str:
    """The site's layer as file names have it; the embedding is called by its name."""
    return site if site == "embed" else str(layer_of(site))


Member = tuple[Directions, int]  # an artefact and the place of a method in it


def runs(directions: Sequence[Directions]) -> dict[str, list[Member]]:
    """The layers of each run, by its name."""
    found: dict[str, list[Member]] = {}
    of = kinds(directions)
    for d in directions:
        for i, method in enumerate(d.methods):
            found.setdefault(run_name(d, of[d.key], method), []).append((d, i))
    return found


def write(root: Path, directions: Sequence[Directions], data: Mapping[str, Texts]) -> None:
    """Write every direction and its scores below `root`, a folder for each run.

    Besides what `write_vectors` writes: {dataset}/probe_stats_layer{L}.csv, with the columns of the
    evaluation-awareness scripts (Nguyen et al. 2025) and n_tokens; text as `csvs` writes it.
    """
    for name, members in runs(directions).items():
        write_vectors(root / name, members)
        for d, i in members:
            for dataset in d.validated:
                path = root / name / dataset / f"probe_stats_layer{layer_name(d.facts['site'])}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                scored = stats(d, i, dataset, data[dataset])
                csvs.write(scored, path, float_format="%.9g")


def write_vectors(folder: Path, members: Sequence[Member]) -> None:
    """Write vectors/layer_{L}.pt and normalized_vectors/layer_{L}.pt, float32 [1, d], and
    experiment_info.txt, the names of the evaluation-awareness scripts."""
    import torch

    for d, i in members:
        for kind, vector in (("vectors", d.direction[i]), ("normalized_vectors", d.unit[i])):
            path = folder / kind / f"layer_{layer_name(d.facts['site'])}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(torch.from_numpy(vector.astype(np.float32)[None]), path)
    (folder / "experiment_info.txt").write_text(_info(members), encoding="utf-8")


def stats(d: Directions, i: int, dataset: str, rows: Texts) -> pd.DataFrame:
    """Scores of a validation set's rows along direction i, one row per text."""
    v = d.validated[dataset]
    long = [len(text) > _SHOWN for text in rows.text]
    return pd.DataFrame(
        {
            "question_id": rows.id,
            "question": [
                text[:_SHOWN] + "..." * cut for text, cut in zip(rows.text, long, strict=True)
            ],
            "type": np.array(rows.classes, object)[rows.label],
            **{f"{s}_score": v.values[i, :, k] for k, s in enumerate(STATISTICS)},
            "n_tokens": v.n_tokens,
        }
    )


def _info(members: Sequence[Member]) -> str:
    first, i = members[0]
    layers = [layer_name(d.facts["site"]) for d, _ in members]
    lines = {
        "Model": first.facts["model"],
        "Layers": ", ".join(layers),
        "Hook": members[-1][0].facts["site"].partition(".")[0],
        "Position": first.facts["position"],
        "Method": first.methods[i],
        "Training dataset": first.facts["train"],
        "Training dataset size": first.facts["n_train"],
        "Positive class": first.facts["positive"],
        "Rule": RULE,
        "Keys": ", ".join(d.key for d, _ in members),
    }
    return "".join(f"{k}: {v}\n" for k, v in lines.items())


def load_texts(paths: Iterable[str], wanted: Iterable[str]) -> dict[str, Texts]:
    """The datasets of these names among texts artefacts."""
    named = {Path(p).name.rsplit(".", 2)[0]: p for p in paths}
    return {name: texts.load(named[name]) for name in sorted(set(wanted))}
