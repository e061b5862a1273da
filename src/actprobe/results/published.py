"""Import of the published results of SAE-Probes and of the sae-probes package as a tidy table.

The layouts are those of github.com/JoshEngels/SAE-Probes (CSV files below `results`) and of the
package sae-probes 0.4 (JSON files). Kantamneni et al. 2025, arXiv 2502.16681.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from actprobe.base import keys
from actprobe.base.errors import ActprobeError
from actprobe.probes.kinds import BINARY
from actprobe.probes.metrics import main_metric
from actprobe.results.tables import tidy

log = logging.getLogger(__name__)

PAPER, PACKAGE = "saeprobes-paper", "saeprobes-0.4.2"
SETTINGS = {
    "normal": "normal",
    "scarcity": "scarcity",
    "class_imbalance": "imbalance",
    "imbalance": "imbalance",
    "label_noise": "label_noise",
    "corrupt": "label_noise",
}
# The layer whose baselines the files without a layer in their name hold.
MAIN_LAYER = {"gemma-2-9b": "20", "llama-3.1-8b": "16", "gemma-2-2b": "12"}
_NUMBERS = {"test_auc", "val_auc", "test_auc_baseline", "test_auc_sae", "test_acc", "test_f1",
            "k", "num_train", "frac", "corrupt_frac", "ratio"}  # fmt: skip
OOD_SAE = {"gemma-2-9b": ("layer_20/width_131k/average_l0_114", 128)}
IN_DISTRIBUTION = "in_distribution_as_ood"
NOTE = (
    "published as out-of-distribution, but scored on the in-distribution test split: the generator "
    "of OOD_setting/all_metrics.csv never reads the OOD texts"
)


def import_published(folder: str | Path, experiment: str = "published") -> pd.DataFrame:
    """The tidy table of all published results below `folder`; their scores are AUCs of two classes.

    Besides the tidy columns there are `origin` and `line`, the file and row a result came from,
    and `note`. Fractions become the nearest multiple of 1/20 (the files hold both 0.15 and
    0.15000000000000002); the older SAE files (`_old`, ranking rule A) become the method ksparse_a,
    the newer ones (rule B) ksparse_b. Rows of an OOD_setting file keep their numbers under the
    setting IN_DISTRIBUTION, with the reason in `note`. Raises ActprobeError for a folder without
    any known file, and for a file that lacks a column, naming it.
    """
    folder, root = Path(folder), _root(folder)
    found = [rows for read in (_baselines, _saes, _package) for rows in read(root)]
    if not found:
        raise ActprobeError(
            f"{folder}: no published results; expected baseline_probes_*, sae_probes_* or "
            "baseline_results_* in it or in its folder results"
        )
    rows = pd.concat(found, ignore_index=True)
    rows["note"] = rows["note"].fillna("")
    rows = rows.rename(columns={"val_auc": "val_score"}).assign(test_score=rows["test_auc"])
    told = {"experiment": experiment, "kind": BINARY, "metric": main_metric(BINARY).name}
    return tidy(rows.assign(**told), str(folder))


def _root(folder: str | Path) -> Path:
    inside = Path(folder) / "results"
    return inside if inside.is_dir() else Path(folder)


def inputs(folder: str | Path, origins: Iterable[str]) -> list[dict[str, str]]:
    """The files that these rows came from (column `origin`) with their digests, as rows of
    `provenance.COLUMNS`."""
    root = _root(folder)
    return [
        {"what": "imported file", "name": name, "value": f"sha256 {keys.file_sha256(root / name)}"}
        for name in sorted(set(origins))
    ]


def fraction(values: pd.Series) -> pd.Series:
    """Ratios and rates as text, rounded to the nearest 1/20: "0.15"."""
    return (values.astype(float) * 20).round().div(20).map("{:g}".format).astype("str")


def _read(path: Path, root: Path, columns: list[str]) -> pd.DataFrame:
    """A CSV file with where its rows came from; refuses one that lacks a column."""
    try:
        rows = pd.read_csv(path)
    except ValueError as e:  # pandas' own errors, and bytes that are not UTF-8
        raise ActprobeError(f"{path}: not a CSV file: {e}") from None
    if not isinstance(rows.index, pd.RangeIndex):  # pandas took the first cells for names
        raise ActprobeError(f"{path}: not a CSV file: rows with more cells than the header")
    _require(rows, columns, path)
    lines = range(2, len(rows) + 2)
    return _numeric(rows, path).assign(origin=str(path.relative_to(root)), line=lines, note="")


def _require(rows: pd.DataFrame, columns: Iterable[str], path: Path) -> None:
    lacking = [c for c in columns if c not in rows.columns]
    if lacking:
        raise ActprobeError(f"{path}: no column {', '.join(lacking)}; found {list(rows.columns)}")


def _numeric(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The same, refused when a column of numbers holds something else."""
    for column in _NUMBERS & set(rows.columns):
        numbers = pd.to_numeric(rows[column], errors="coerce")
        wrong = rows[column][numbers.isna() & rows[column].notna()]
        if len(wrong):
            raise ActprobeError(
                f"{path}: {column} {wrong.iloc[0]!r} of result {wrong.index[0] + 1} is no number"
            )
    return rows


def _placed(
    rows: pd.DataFrame, model: str, layer: str, protocol: str, setting: str
) -> pd.DataFrame:
    """Rows with model, site, position and, where they have none, the source of baselines."""
    site = {"embed": "embed", "": ""}.get(layer, f"resid_post.{layer}")
    source = rows.get("source", f"{model}/{site}.last")
    return rows.assign(
        model=model, site=site, position="last", source=source, protocol=protocol, setting=setting
    )


def _baselines(root: Path) -> Iterator[pd.DataFrame]:
    """baseline_probes_{model}: one file per layer (normal) or per setting (the main layer)."""
    for folder in sorted(root.glob("baseline_probes_*")):
        model = folder.name.removeprefix("baseline_probes_")
        main = MAIN_LAYER.get(model, "")
        for path in sorted(folder.glob("normal_settings/layer*_results.csv")):
            layer = path.name.removeprefix("layer").removesuffix("_results.csv")
            rows = _read(path, root, ["dataset", "method", "test_auc", "val_auc"])
            yield _placed(rows.assign(condition=""), model, layer, PAPER, "normal")
        few = folder / "scarcity/summary/all_results.csv"
        few = few if few.is_file() else folder / "scarcity/all_results.csv"
        for path, setting, column in (
            (few, "scarcity", "num_train"),
            (folder / "imbalance/all_results.csv", "imbalance", "ratio"),
            (folder / "corrupt/all_results.csv", "label_noise", "ratio"),
        ):
            if path.is_file():
                rows = _read(path, root, ["dataset", "method", column, "test_auc", "val_auc"])
                rows["condition"] = _condition(rows)
                yield _placed(_renamed(rows), model, main, PAPER, setting)
        path = folder / "ood/all_results.csv"
        if path.is_file():
            rows = _read(path, root, ["dataset", "test_auc_baseline", "test_auc_sae"])
            yield from _ood(rows, model, main)


def _ood(rows: pd.DataFrame, model: str, layer: str) -> Iterator[pd.DataFrame]:
    """The true OOD results: logreg and one SAE probe side by side."""
    both = ["test_auc_baseline", "test_auc_sae"]
    rest = rows.drop(columns=both).assign(condition=rows["dataset"] + "_OOD")
    logreg = rest.assign(method="logreg", test_auc=rows[both[0]])
    yield _placed(logreg, model, layer, PAPER, "ood")
    name, k = OOD_SAE.get(model, ("SAE", None))
    sae = rest.assign(method="ksparse", k=k, source=name, test_auc=rows[both[1]])
    yield _placed(sae, model, layer, PAPER, "ood")


def _saes(root: Path) -> Iterator[pd.DataFrame]:
    """sae_probes_{model}/{setting}_setting/all_metrics[_old].csv."""
    for path in sorted(root.glob("sae_probes_*/*_setting/all_metrics*.csv")):
        if path.stem not in ("all_metrics", "all_metrics_old"):
            continue
        model = path.parent.parent.name.removeprefix("sae_probes_")
        published = path.parent.name.removesuffix("_setting")
        rows = _read(path, root, ["dataset", "k", "reg_type", "test_auc", "val_auc"])
        # The first normal file names the SAE by width and L0 and was ranked by rule A.
        first = "sae_id" not in rows
        if first:
            _require(rows, ["layer", "sae_width", "sae_l0"], path)
        rule = "ksparse_a" if first or path.stem.endswith("_old") else "ksparse_b"
        rows["method"] = _sparse_method(rows, rule)
        rows["source"] = rows.apply(_sae_of_width, axis=1) if first else rows["sae_id"]
        rows["condition"] = _condition(rows)
        setting = SETTINGS.get(published, published)
        if published == "OOD":
            setting, rows["note"] = IN_DISTRIBUTION, NOTE
            log.warning("%s: %s", path, NOTE)
        if "layer" not in rows:
            rows["layer"] = MAIN_LAYER.get(model, "")
        for layer, some in rows.groupby(rows["layer"].astype("str"), sort=False):
            yield _placed(_renamed(some), model, str(layer), PAPER, setting)


def _sparse_method(rows: pd.DataFrame, rule: str) -> pd.Series:
    """ksparse_a or ksparse_b, with what departs from L1 on the plain latents in the name."""
    binarized = rows["binarize"].astype("str").eq("True") if "binarize" in rows else False
    name = pd.Series(rule, rows.index).where(rows["reg_type"] == "l1", f"{rule}_l2")
    return name.where(~pd.Series(binarized, rows.index), name + "_binarized")


def _sae_of_width(row: pd.Series) -> str:
    """ "layer_20/width_16k/average_l0_408" of a file with the columns layer, sae_width, sae_l0."""
    width = str(row["sae_width"]).removeprefix("width_")
    l0 = str(row["sae_l0"]).removeprefix("average_l0_").removesuffix(".0")
    return f"layer_{row['layer']}/width_{width}/average_l0_{l0}"


def _condition(rows: pd.DataFrame) -> pd.Series:
    """The condition as text, from whichever of the columns the file has."""
    for column in ("frac", "corrupt_frac", "ratio"):
        if column in rows:
            return fraction(rows[column])
    if "num_train" in rows:
        return rows["num_train"].astype("str")
    return pd.Series("", rows.index)


def _renamed(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the columns that went into method, source, condition and site."""
    used = ["sae_id", "sae_width", "sae_l0", "layer", "hook_name", "indices"]
    used += ["reg_type", "binarize", "frac", "corrupt_frac", "ratio"]
    return rows.drop(columns=used, errors="ignore").rename(columns={"num_train": "n_train"})


def _package(root: Path) -> Iterator[pd.DataFrame]:
    """JSON files of the package: {kind}_{model}/{setting}_setting/*.json, lists of results."""
    for kind in ("baseline_results_", "sae_probes_"):
        for folder in sorted(root.glob(f"{kind}*/*_setting")):
            model = folder.parent.name.removeprefix(kind)
            name = folder.name.removesuffix("_setting")
            setting = SETTINGS.get(name, name)
            found = [
                {**entry, "origin": str(path.relative_to(root)), "line": i}
                for path in sorted(folder.glob("*.json"))
                for i, entry in enumerate(_entries(path), 1)
            ]
            if not found:
                continue
            rows = _numeric(pd.DataFrame(found), folder)
            sparse = ["reg_type"] if kind == "sae_probes_" else ["method"]
            _require(rows, ["dataset", "hook_name", *sparse], folder)
            rows["condition"] = _condition(rows) if setting != "normal" else ""
            if kind == "sae_probes_":
                rows["method"] = _sparse_method(rows, "ksparse_b")
                rows["source"] = "SAE on " + rows["hook_name"]
                rows["note"] = "the files name neither the SAE nor the ranking rule (default: b)"
            else:
                rows["note"] = ""
            for hook, some in rows.groupby("hook_name", sort=False):
                layer = re.search(r"blocks\.(\d+)\.", str(hook))
                at = layer[1] if layer else "embed"
                yield _placed(_renamed(some), model, at, PACKAGE, setting)


def _entries(path: Path) -> list[dict]:
    try:
        entries = json.loads(path.read_text())
    except (ValueError, RecursionError) as e:
        raise ActprobeError(f"{path}: not valid JSON: {e}") from e
    whole = isinstance(entries, list) and all(isinstance(e, dict) for e in entries)
    if not whole or not all("test_auc" in e for e in entries):
        raise ActprobeError(f"{path}: expected a list of results with a test_auc each")
    return entries
