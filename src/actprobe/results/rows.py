"""Row-level tables: the score of every row of every kept fit, and the texts most confidently wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from actprobe import lora
from actprobe.cache import store
from actprobe.probes import data, thresholds
from actprobe.probes.kinds import BINARY, CONTINUOUS
from actprobe.texts.table import dataset_name

# `score` is that of class 1, of several classes that of the predicted one, of values the prediction.
SCORES = [
    "experiment", "id", "collection", "source", "protocol", "setting", "condition", "method", "k",
    "seed", "task", "split", "label", "score", "prediction", "key",
]  # fmt: skip
ERRORS = [*SCORES, "margin", "text"]
MOST = 20  # errors told of each fit
_SPLITS = ("train", "validation", "test")
_OF_FIT = ("source", "protocol", "setting", "condition", "method", "k", "seed", "key")

Row = Mapping[str, Any]
Ids = NDArray[Any]


class Collections:
    """The collections that fits read: ids (and texts) of rows by their place.

    texts: paths of their artefacts; features: of one representation of each collection of LoRAs, which
    tells the ids of all. A fit is of the texts that hold what its spec says, whatever file they are of.
    """

    def __init__(self, texts: Iterable[str | Path], features: Iterable[str | Path] = ()) -> None:
        self._texts = [(dataset_name(p), str(p), _identities(p)) for p in texts]
        self._features = {Path(p).parent.name: str(p) for p in features}

    def of_fit(self, header: Mapping[str, Any], row: Row) -> tuple[str, Ids, str, Ids]:
        """Name and ids of the collection that a fit was fitted on, and of the one that tests it."""
        spec = header["spec"]
        if "texts" not in spec:
            name = row["source"].partition("/")[0]
            ids = lora.load(self._features[name]).id
            return name, ids, name, ids
        dataset = row["dataset"]
        _, path = self._holding(spec["texts"], dataset)
        test, tried = dataset, path
        if "test_texts" in spec:
            test, tried = self._holding(spec["test_texts"], row.get("test_set"))
        return dataset, _column(path, "id"), test, _column(tried, "id")

    def components(self, header: Mapping[str, Any], row: Row) -> NDArray[np.int64]:
        """Of the texts that test a fit: which rows belong together (equal text, group or pair) [N].

        A row without a label stands for itself.
        """
        spec = header["spec"]
        identity, name = spec["texts"], row["dataset"]
        if "test_texts" in spec:
            identity, name = spec["test_texts"], row.get("test_set")
        known = data.labels(self._holding(identity, name)[1])
        found = np.arange(known.n_rows) + known.n_rows
        found[known.row] = known.component
        return found

    def _holding(self, identity: str, name: str | None) -> tuple[str, str]:
        """Name and path of the texts of this identity, of this name where several are the same."""
        found = {n: path for n, path, known in self._texts if identity in known}
        if name in found:
            return name, found[name]
        return next(iter(found.items()))

    def texts_of(self, collection: str) -> tuple[Ids, Ids] | None:
        """Ids and texts of a dataset; None of LoRAs."""
        path = next((path for name, path, _ in self._texts if name == collection), None)
        return None if path is None else (_column(path, "id"), _column(path, "text"))


def _identities(path: str | Path) -> set[str]:
    """What fits call these texts: what is in them, or their key where a model wrote them."""
    header = store.read_header(path)
    return {header["key"], header["facts"].get("content", "")}


@lru_cache(maxsize=64)
def _column(path: str, name: str) -> Ids:
    found: Ids = store.read_table(path, [name])[name].to_numpy(zero_copy_only=False)
    return found


def frames(
    fits: Mapping[str, Row], collections: Collections, experiment: str
) -> Iterator[pd.DataFrame]:
    """The rows of each kept fit in fit files, in their order: columns `SCORES`, and margin.

    fits: path -> rule of the threshold (`thresholds.choose`), which decides the prediction of two
    classes. margin: of two classes how far the score is on the wrong side of the threshold, of several
    by how much the predicted class is over the true one, of values the distance from the label. A fit
    that kept nothing has no rows, nor has a file that stands for a dataset that cannot be used.
    """
    for path, rule in fits.items():
        for header, row in kept(path):
            found = of_fit(row, *collections.of_fit(header, row), rule)
            yield found.assign(experiment=experiment)


def scores(of_fits: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Columns `SCORES` of all rows of these fits (`frames`)."""
    parts = list(of_fits)
    return pd.concat(parts, ignore_index=True)[SCORES] if parts else _empty(SCORES)


def errors(
    of_fits: Iterable[pd.DataFrame],
    collections: Collections,
    most: int = MOST,
    texts: bool = True,
) -> pd.DataFrame:
    """Columns `ERRORS`: of each of these fits the test rows that it gets most confidently wrong.

    texts: whether their texts are told; without them the column is empty.
    """
    parts = []
    for table in of_fits:
        known = (table["split"] == "test") & table["prediction"].notna()
        wrong = table[known & (table["prediction"] != table["label"])]
        if wrong.empty:
            continue
        wrong = wrong.sort_values("margin", ascending=False, kind="stable").head(most)
        said = collections.texts_of(wrong["collection"].iloc[0]) if texts else None
        text = {} if said is None else dict(zip(*said, strict=True))
        told = wrong["id"].map(text).astype(object).fillna("").astype(str)
        parts.append(wrong.assign(text=told))
    return pd.concat(parts, ignore_index=True)[ERRORS] if parts else _empty(ERRORS)


def write_scores(table: pd.DataFrame, path: Path) -> None:
    """Write a table of `scores` as Parquet; equal input gives equal bytes."""
    words = [c for c in SCORES if c not in ("k", "seed", "score")]
    fields = [
        (c, pa.dictionary(pa.int32(), pa.string()) if c != "id" else pa.string()) for c in words
    ]
    kinds = dict(fields) | {"k": pa.int32(), "seed": pa.int32(), "score": pa.float64()}
    typed = table.assign(**{c: table[c].astype("Int32") for c in ("k", "seed")})
    typed["score"] = typed["score"].astype("float64")
    schema = pa.schema([(c, kinds[c]) for c in SCORES])
    pq.write_table(
        pa.Table.from_pandas(typed, schema, preserve_index=False), path, compression="zstd"
    )


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({c: pd.Series(dtype="str") for c in columns})


def kept(path: str) -> Iterator[tuple[Mapping[str, Any], Row]]:
    """Header and row of every fit of a file that kept its scores; models are not read."""
    header = store.read_header(path)
    if header["bad"] or not header["spec"].get("keep"):
        return
    for row in store.read_table(path, lambda c: c != "kept_model").to_pylist():
        if row.get("kept_scores") is not None:
            yield header, row


def of_fit(
    row: Row, collection: str, ids: Ids, test: str, test_ids: Ids, rule: Row
) -> pd.DataFrame:
    """The rows of one fit: `SCORES` but for the experiment, and margin."""
    places = {s: np.asarray(row[f"kept_{s}"] or (), np.int64) for s in _SPLITS}
    n = {s: len(at) for s, at in places.items()}
    label, said = np.asarray(row["kept_label"], float), np.asarray(row["kept_scores"], float)
    kind, classes = row["kind"], np.array(json.loads(row.get("classes") or "[]"), object)
    columns: dict[str, Any] = {
        "id": np.concatenate([(test_ids if s == "test" else ids)[at] for s, at in places.items()]),
        "collection": np.repeat([collection, collection, test], list(n.values())),
        "split": np.repeat(_SPLITS, list(n.values())),
    }
    if kind == CONTINUOUS:
        columns |= {"label": label.astype(str), "score": said, "prediction": said.astype(str)}
        columns["margin"] = np.abs(said - label)
    else:
        true = label.astype(int)
        above = thresholds.of_fit(rule, row).value if kind == BINARY else math.nan
        score, chosen, margin = _of_classes(said.reshape(len(true), -1), true, above)
        columns |= {"label": classes[true], "score": score, "prediction": classes[chosen]}
        columns["margin"] = margin
        unknown = np.isnan(score)
        columns["prediction"] = np.where(unknown, None, columns["prediction"])
    fixed = {k: row.get(k) for k in _OF_FIT}
    return pd.DataFrame({**columns, **fixed, "task": row.get("label") or ""})


def _of_classes(
    said: NDArray[Any], true: NDArray[Any], above: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Score, predicted class and margin of each row. above: the threshold of two classes, NaN of
    several."""
    if not math.isnan(above):
        score = said[:, 0]
        chosen = (score > above).astype(int)
        return score, chosen, np.where(chosen != true, np.abs(score - above), 0.0)
    at = np.arange(len(true))
    chosen = np.nan_to_num(said, nan=-np.inf).argmax(axis=1)
    return said[at, chosen], chosen, said[at, chosen] - said[at, true]
