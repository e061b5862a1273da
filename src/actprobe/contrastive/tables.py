"""The tidy table of contrastive probes: one row per direction and validation set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actprobe import csvs, store
from actprobe.contrastive import artefact
from actprobe.contrastive.artefact import RANDOM, Directions, Validated
from actprobe.contrastive.controls import band
from actprobe.contrastive.nulls import FEWEST
from actprobe.contrastive.targets import METHODS
from actprobe.errors import BadInput
from actprobe.results.figures.style import layer_of

# The layers of one run differ in nothing but the layer.
RUN = ["train", "model", "kind", "position", "score_at", "method"]
COLUMNS = [
    "experiment", *RUN, "source", "site", "layer", "dataset", "positive", "n_train", "n_test",
    "norm", "converged", "train_auc", "val_auc", "val_d", "chosen", "test_auc", "ci_low", "ci_high",
    "null_random_low", "null_random_high", "null_permuted_low", "null_permuted_high", "p_random",
    "p_permuted", "length_corr", "first_token", "compare_with", "cos_compare",
    "auc_without_compare", "warning", "key",
]  # fmt: skip
_TEXT = ("experiment", *RUN, "source", "site", "dataset", "positive", "compare_with", "warning",
         "key")  # fmt: skip
NAN = float("nan")
RULE = (
    "sign: class 1 scores higher on the training rows; layer: the highest AUROC on held-out "
    "training rows (val_auc), then the largest held-out d′, then the lowest layer"
)
_RESIDUAL = ("resid_post", "resid_pre")
_CORRELATED = 0.5  # |correlation of a score with 1/length| from which length may explain it
_DOMINANT = 0.5  # share of rows whose first token is extreme from which it dominates


def load(paths: Iterable[str]) -> tuple[list[Directions], list[dict[str, str]]]:
    """The artefacts at these paths, and the reasons of those that stand for a bad input, and of
    datasets that were left out of one."""
    found, skipped = [], []
    for path in paths:
        name = _name(path, 3)
        try:
            d = artefact.load(path)
        except BadInput as e:
            skipped.append({"name": name, "reason": str(e)})
            continue
        found.append(d)
        left_out = d.facts["left_out"].items()
        skipped += [{"name": f"{name}: {k}", "reason": reason} for k, reason in left_out]
    return found, skipped


def _name(path: str, parts: int) -> str:
    """The last parts of an artefact's path, without key and extension."""
    return "/".join(Path(path).parts[-parts:]).rsplit(".", 2)[0]


def table(
    directions: Sequence[Directions], baselines: pd.DataFrame, experiment: str
) -> pd.DataFrame:
    """The tidy table [`COLUMNS`]; `chosen` marks the layer that `RULE` takes in each run.

    Baselines are rows without a source, whose `chosen` is False.
    """
    of = kinds(directions)
    rows = [row for d in directions for row in _rows(d, of[d.key])]
    rows += baselines.to_dict("records")
    made = pd.DataFrame(rows, columns=COLUMNS).assign(experiment=experiment)
    for column in _TEXT:
        made[column] = made[column].astype(object).where(made[column].notna(), "")
    made["chosen"] = _chosen(made)
    order = ["train", "method", "model", "kind", "position", "score_at", "dataset", "layer"]
    rank = {m: i for i, m in enumerate(dict.fromkeys(made["method"]))}
    made = made.assign(rank=made["method"].map(rank)).sort_values(
        [c if c != "method" else "rank" for c in order], kind="stable", na_position="last"
    )
    return made.drop(columns="rank").reset_index(drop=True)


def kinds(directions: Sequence[Directions]) -> dict[str, str]:
    """Kind of the site of each artefact, by its key ("resid_post").

    The embedding counts as the first layer of the residual stream where its run has layers of it.
    """
    places = [tuple(d.facts[k] for k in RUN[:-1] if k != "kind") for d in directions]
    own = [d.facts["site"].partition(".")[0] for d in directions]
    there: dict[tuple, set[str]] = {}
    for place, kind in zip(places, own, strict=True):
        there.setdefault(place, set()).add(kind)
    home = {p: next((k for k in _RESIDUAL if k in found), "embed") for p, found in there.items()}
    return {
        d.key: home[place] if kind == "embed" else kind
        for d, place, kind in zip(directions, places, own, strict=True)
    }


def _rows(d: Directions, kind: str) -> Iterable[dict[str, Any]]:
    site = d.facts["site"]
    place = {k: d.facts[k] for k in ("train", "model", "source", "site", "position", "score_at")}
    place |= {k: d.facts[k] or "" for k in ("positive", "compare_with")}
    place |= {"kind": kind, "layer": layer_of(site), "key": d.key}
    for i, method in enumerate(d.methods):
        for dataset, v in d.validated.items():
            numbers = {**d.numbers[i], **v.numbers[i]}
            yield {
                **place,
                "method": method,
                "dataset": dataset,
                "n_train": d.facts["n_train"],
                "norm": d.norm[i],
                **{k: NAN if n is None else n for k, n in numbers.items()},
                **_bands(d, v, method),
                "warning": warning({**numbers, "norm": d.norm[i], **_null_facts(d, method)}),
            }


def _null_facts(d: Directions, method: str) -> dict[str, Any]:
    return {
        "orders": d.facts["orders"],
        "null_converged": method not in d.facts["null_unconverged"],
    }


def _bands(d: Directions, v: Validated, method: str) -> dict[str, float]:
    """The bands of random directions and of the method's own null; the latter, and its p, are NaN
    where the training labels have too few orders for one."""
    found: dict[str, float] = {}
    for kind, of in (("random", RANDOM), ("permuted", method)):
        low, high = band(v.null[of])
        found |= {f"null_{kind}_low": low, f"null_{kind}_high": high}
    if (d.facts["orders"] or FEWEST) < FEWEST:
        found |= dict.fromkeys(("null_permuted_low", "null_permuted_high", "p_permuted"), NAN)
    return found


def warning(numbers: Mapping[str, Any]) -> str:
    """What speaks against taking an AUROC at its face value; "" for nothing."""
    found = []
    if numbers["norm"] == 0:
        found.append("no direction: both classes have the same mean")
    if abs(numbers["length_corr"] or 0) > _CORRELATED:
        found.append(f"scores follow 1/length (r = {numbers['length_corr']:.2f})")
    if (numbers["first_token"] or 0) > _DOMINANT:
        found.append(f"the first token is extreme in {numbers['first_token']:.0%} of the rows")
    if not numbers["converged"]:
        found.append("the solver stopped early")
    orders = numbers.get("orders")
    if orders is not None and orders < FEWEST:
        found.append(
            f"no null band: pairs and groups leave {orders} orders of the training labels, {FEWEST} "
            "are needed"
        )
    if not numbers.get("null_converged", True):
        found.append("not every fit of the null converged")
    return "; ".join(found)


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


def read(path: str | Path) -> pd.DataFrame:
    """The table that was written."""
    made = csvs.read(path, _TEXT)
    return made.assign(chosen=made["chosen"].eq(True))


def read_baselines(paths: Iterable[str]) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """The rows of all baselines, and the reasons of those that could not be made."""
    found, skipped = [], []
    for path in paths:
        try:
            found.append(store.read_table(path).to_pandas())
        except BadInput as e:
            skipped.append({"name": f"baselines {_name(path, 2)}", "reason": str(e)})
    columns = ["train", "dataset", "method", "n_train", "n_test", "test_auc", "ci_low", "ci_high"]
    rows = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns)
    return rows.drop_duplicates(["train", "dataset", "method"]), skipped


def cosines(directions: Sequence[Directions]) -> dict[tuple[str, ...], pd.DataFrame]:
    """Cosines between the directions of a run's layers: run -> [layers, layers] by site."""
    units: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    of = kinds(directions)
    for d in directions:
        facts = {**d.facts, "kind": of[d.key]}
        place = tuple(facts[k] for k in RUN[:-1])
        for method, unit in zip(d.methods, d.unit, strict=True):
            if unit.any():  # there is a direction
                units.setdefault((*place, method), {})[d.facts["site"]] = unit
    found = {}
    for run in sorted(units, key=lambda r: (*r[:-1], METHODS.index(r[-1]))):
        by_site = units[run]
        sites = sorted(by_site, key=lambda s: layer_of(s) or 0)
        stacked = np.stack([by_site[s] for s in sites])
        found[run] = pd.DataFrame(stacked @ stacked.T, sites, sites)
    return found
