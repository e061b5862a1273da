"""Directions that datasets test: as `probes` keeps them, and as rows with the layers chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actprobe import texts
from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.probes import door
from actprobe.probes.projections import STATISTICS
from actprobe.results.views import layer_of
from actprobe.texts import Texts

# The layers of one run differ in nothing but the layer.
RUN = ["train", "model", "kind", "position", "score_at", "method"]
COLUMNS = [
    "experiment", *RUN, "source", "site", "layer", "dataset", "positive", "n_train", "n_test",
    "norm", "converged", "train_auc", "val_auc", "val_d", "chosen", "test_auc", "ci_low", "ci_high",
    "null_random_low", "null_random_high", "null_permuted_low", "null_permuted_high", "p_random",
    "p_permuted", "length_corr", "first_token", "compare_with", "cos_compare",
    "auc_without_compare", "left_out", "warning", "reason", "key",
]  # fmt: skip
METHODS = ("mean_difference", "logreg", "lda")  # the order of tables and figures
TEXT = ("experiment", *RUN, "source", "site", "dataset", "positive", "compare_with", "left_out",
         "warning", "reason", "key")  # fmt: skip
_NAMES = {"dataset": "train", "test_set": "dataset", "train_score": "train_auc", "val_score": "val_auc",
          "test_score": "test_auc"}  # fmt: skip
RULE = (
    "sign: class 1 scores higher on the training rows; layer: the highest AUROC on held-out "
    "training rows (val_auc), then the largest held-out d′, then the lowest layer"
)
_RESIDUAL = ("resid_post", "resid_pre")


def view(tidy: pd.DataFrame) -> pd.DataFrame:
    """The directions of the tidy table and the baselines beside them [`COLUMNS`].

    `chosen` marks the layer that `RULE` takes in each run. Baselines are rows without a source, whose
    `chosen` is False.
    """
    rows = tidy.reindex(columns=[*tidy.columns, *(c for c in _NAMES if c not in tidy)])
    rows = rows[rows["test_set"].notna() & (rows["test_set"] != "")]
    taken = [c for c in rows if c in _NAMES.values() and c not in _NAMES]
    rows = rows.drop(columns=taken).rename(columns=_NAMES).reindex(columns=COLUMNS)
    for column in TEXT:
        rows[column] = rows[column].astype(object).where(rows[column].notna(), "")
    numbers = [c for c in COLUMNS if c not in (*TEXT, "converged", "chosen")]
    rows[numbers] = rows[numbers].astype("float64")
    rows["layer"] = np.array([layer_of(site) for site in rows["site"]], float)
    text = rows["source"] == "texts"
    rows.loc[text, ["source", "score_at"]] = ""
    rows["kind"] = kinds(rows)
    made = rows.assign(chosen=_chosen(rows))
    order = ["train", "rank", "model", "kind", "position", "score_at", "dataset", "layer"]
    made = made.assign(rank=made["method"].map(rank)).sort_values(
        order, kind="stable", na_position="last"
    )
    return made.drop(columns="rank").reset_index(drop=True)


def rank(method: str) -> tuple[int, str]:
    """Sort key of a method: directions in their usual order, then others, then baselines."""
    usual = METHODS.index(method) if method in METHODS else len(METHODS)
    return (usual + method.startswith("baseline"), method)


def kinds(rows: pd.DataFrame) -> list[str]:
    """Kind of the site of each row of train, model, position, score_at and site ("resid_post").

    The embedding counts as the first layer of the residual stream where its run has layers of it.
    """
    places = list(
        rows[["train", "model", "position", "score_at"]].itertuples(index=False, name=None)
    )
    own = [site.partition(".")[0] for site in rows["site"]]
    there: dict[tuple[Any, ...], set[str]] = {}
    for place, kind in zip(places, own, strict=True):
        there.setdefault(place, set()).add(kind)
    home = {p: next((k for k in _RESIDUAL if k in found), "embed") for p, found in there.items()}
    return [
        home[place] if kind == "embed" else kind for place, kind in zip(places, own, strict=True)
    ]


def runs(found: Sequence[Applied]) -> dict[tuple[str, ...], list[Applied]]:
    """The directions of each run (`RUN`), methods in their usual order."""
    if not found:
        return {}
    rows = pd.DataFrame([d.row for d in found]).rename(columns=_NAMES)
    names = rows.assign(kind=kinds(rows))[RUN].itertuples(index=False, name=None)
    made: dict[tuple[str, ...], list[Applied]] = {}
    for run, d in zip(names, found, strict=True):
        made.setdefault(run, []).append(d)
    return dict(sorted(made.items(), key=lambda item: (*item[0][:-1], rank(item[0][-1]))))


def _chosen(made: pd.DataFrame) -> pd.Series:
    """True for the rows of the layer that each run's training rows speak for.

    Nowhere in a run whose training rows could not be held out.
    """
    fits = made[(made["source"] != "") & made["val_auc"].notna()].drop_duplicates([*RUN, "source"])
    ordered = fits.assign(val_auc=fits["val_auc"].round(12)).sort_values(
        ["val_auc", "val_d", "layer"], ascending=[False, False, True], kind="stable"
    )
    best = ordered.drop_duplicates(RUN)
    taken = set(best[[*RUN, "source"]].itertuples(index=False, name=None))
    mine = made[[*RUN, "source"]].itertuples(index=False, name=None)
    return pd.Series([row in taken for row in mine], index=made.index)


def cosines(found: Sequence[Applied]) -> dict[tuple[str, ...], pd.DataFrame]:
    """Cosines between the directions of a run's layers: run -> [layers, layers] by site."""
    made = {}
    for run, members in runs(found).items():
        by_site = {d.row["site"]: d.unit for d in members if d.row["norm"] > 0}
        if by_site:
            sites = sorted(by_site, key=lambda s: layer_of(s) or 0)
            stacked = np.stack([by_site[s] for s in sites])
            made[run] = pd.DataFrame(stacked @ stacked.T, sites, sites)
    return made


@dataclass(frozen=True)
class Applied:
    """One direction and the scores of one test set.

    row: its tidy row; direction, unit, mean_positive, mean_negative: float64 [d]; at: rows of the
    test dataset that have a label [N]; y: 0/1 labels [N]; values: [N, 4]
    (`projections.STATISTICS`); n_tokens: int32 [N], -1 where an imported cache does not tell it; null:
    AUCs of null directions, `random` ones and fits on `permuted` labels.
    """

    row: Mapping[str, Any]
    direction: NDArray[np.float64]
    mean_positive: NDArray[np.float64]
    mean_negative: NDArray[np.float64]
    at: NDArray[np.int64]
    y: NDArray[np.uint8]
    values: NDArray[np.float64]
    n_tokens: NDArray[np.int32]
    null: Mapping[str, NDArray[np.float64]]

    @property
    def unit(self) -> NDArray[np.float64]:
        """The direction of norm 1, [d]; zero where there is none."""
        return np.asarray(self.direction / (self.row["norm"] or 1.0), np.float64)


def load(path: str | Path) -> Applied | None:
    """Read an artefact; None for a baseline.

    Raises BadInput with the stored reason for a tombstone.
    """
    table = store.read_table(path)
    if "kept_direction" not in table.column_names:
        return None
    (row,) = table.to_pylist()
    if row["kept_direction"] is None:
        return None
    arrays = {name: np.array(door.kept(row, name), dtype.to_pandas_dtype())
              for name, dtype in door.DIRECTION.items()}  # fmt: skip
    return Applied(
        {c: v for c, v in row.items() if not c.startswith("kept_")},
        arrays["direction"],
        arrays["mean_positive"],
        arrays["mean_negative"],
        arrays["row"],
        arrays["y"],
        arrays["statistics"].reshape(-1, len(STATISTICS)),
        arrays["n_tokens"],
        {kind: arrays[f"null_{kind}"] for kind in ("random", "permuted")},
    )


def load_all(paths: Iterable[str | Path]) -> list[Applied]:
    """The directions among these artefacts; tombstones and baselines are passed over."""
    found = []
    for path in paths:
        try:
            of = load(path)
        except BadInput:
            continue
        if of is not None:
            found.append(of)
    return found


def load_texts(paths: Iterable[str], wanted: Iterable[str]) -> dict[str, Texts]:
    """The datasets of these names among texts artefacts."""
    named = {Path(p).name.rsplit(".", 2)[0]: p for p in paths}
    return {name: texts.load(named[name]) for name in sorted(set(wanted))}
