"""Fit files: which row of which file is asked for, and what a row keeps."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import store
from actprobe.cache.plan import Target
from actprobe.config import nearest
from actprobe.face import card as cards
from actprobe.face.card import Card
from actprobe.face.origin import Origin
from actprobe.probes import keep, thresholds
from actprobe.probes.keep import Scorer
from actprobe.probes.kinds import BINARY
from actprobe.results import rows as row_tables

OF_FILE = ("dataset", "source", "method", "protocol", "setting")
OF_ROW = ("seed", "condition", "k", "label", "columns", "test_set")

Row = Mapping[str, Any]


def of_file(t: Target) -> dict[str, Any]:
    """What a fit file is of."""
    place = {k: t.args.get(k) or "" for k in ("dataset", "source")}
    place["dataset"] = place["dataset"] or t.item
    return {**place, **{k: t.spec[k] for k in ("method", "protocol", "setting")}}


def files(targets: Sequence[Target], which: Mapping[str, Any]) -> list[Target]:
    """The files that are there and match patterns of `OF_FILE`. Raises ActprobeError for others."""
    _check(which)
    return [
        t
        for t in targets
        if all(fnmatch.fnmatch(str(v), str(which.get(k, "*"))) for k, v in of_file(t).items())
        and Path(t.path).is_file()
    ]


def _check(which: Mapping[str, Any]) -> None:
    for key in which:
        if key not in (*OF_FILE, *OF_ROW):
            raise ActprobeError(f"no fit has a {key!r}; {nearest(key, (*OF_FILE, *OF_ROW))}")


def one(targets: Sequence[Target], wanted: Mapping[str, Any], command: str) -> tuple[Target, Row]:
    """The one fit that is wanted. Raises ActprobeError for none, or more than one."""
    _check(wanted)
    exact = {k: v for k, v in wanted.items() if k in OF_FILE}
    own = [t for t in targets if all(of_file(t)[k] == v for k, v in exact.items())]
    said = " ".join(str(v) for v in wanted.values())
    if not own:
        names = {
            " ".join(str(of_file(t)[k]) for k in ("dataset", "source", "method")) for t in targets
        }
        asked = " ".join(str(wanted[k]) for k in ("dataset", "source", "method"))
        raise ActprobeError(f"the config asks for no probe {said}; {nearest(asked, names)}")
    there = [t for t in own if Path(t.path).is_file()]
    if not there:
        raise ActprobeError(f"{said} is not fitted yet: {own[0].path}; make it: {command}")
    found = [(t, row) for t in there for row in _rows(t) if _fits(row, wanted)]
    if not found:
        rows = [(t, row) for t in there for row in _rows(t)]
        there_are = f"there are {_varying(rows)}" if rows else "they hold none"
        raise ActprobeError(f"{said}: the files hold no such fit; {there_are}")
    if len(found) > 1:
        raise ActprobeError(f"{said}: {len(found)} fits; say which: {_varying(found)}")
    return found[0]


def kept(targets: Sequence[Target], which: Mapping[str, Any]) -> Iterator[tuple[Target, Row]]:
    """All fits with a model that match patterns."""
    for t in files(targets, which):
        for row in _rows(t):
            if _fits(row, which) and row.get("kept_model") is not None:
                yield t, row


def _rows(t: Target) -> list[Row]:
    try:
        return store.read_table(t.path).to_pylist()
    except BadInput as e:
        raise ActprobeError(f"{t.name} could not be fitted: {e}") from None


def _fits(row: Row, wanted: Mapping[str, Any]) -> bool:
    return all(row.get(k) == wanted[k] for k in OF_ROW if k in wanted)


def _varying(found: Sequence[tuple[Target, Row]]) -> str:
    """The values of what differs between fits."""
    values: dict[str, dict[str, None]] = {}
    for t, row in found:
        for k in (*OF_FILE, *OF_ROW):
            v = of_file(t)[k] if k in OF_FILE else row.get(k)
            values.setdefault(k, {})[repr(v)] = None
    varying = {k: list(v) for k, v in values.items() if len(v) > 1}
    return "; ".join(
        f"{k}={' or '.join(v[:8])}{' …' if len(v) > 8 else ''}" for k, v in varying.items()
    )


def scorer(t: Target, row: Row) -> Scorer:
    """The model of a fit. Raises ActprobeError where none was kept, saying why."""
    content = row.get("kept_model")
    if content is None:
        why = row.get("kept_why") or row.get("reason") or (
            "its setting is not kept; name it in `keep` of its entry in `probes` and run again"
        )  # fmt: skip
        raise ActprobeError(f"{t.name}: no model of this fit is there: {why}")
    found = keep.read(content)
    if found.needs_train_rows:
        from actprobe.probes import data
        from actprobe.probes import protocol as protocols

        recipe = protocols.recipe(
            protocols.load(t.args["protocol"]), t.spec["setting"], t.spec["method"]
        )
        x = data.matrix(t.args["matrix"], recipe["method"], recipe["setting"])
        found = keep.with_train_rows(found, x[np.asarray(row["kept_train"])])
    return found


def card(t: Target, row: Row, origin: Origin, found: Scorer) -> Card:
    """What a fit tells of itself."""
    fit, numbers = cards.of_row(row)
    fit = {**of_file(t), **fit, "key": t.key}
    data = {"dataset": fit["dataset"], "rows": len(row["kept_train"] or ())}
    if texts := t.args.get("texts"):
        header = store.read_header(texts)
        data |= {"texts": header["key"], "n": header["facts"].get("n")}
    return Card(origin, fit, numbers, threshold(t, row, found), data)


def threshold(t: Target, row: Row, found: Scorer) -> dict[str, Any] | None:
    """The threshold of two classes by the rule of the config; None of others."""
    if found.kind != BINARY:
        return None
    chosen = thresholds.of_fit(t.args["threshold"], row)
    return {**asdict(chosen), "value": chosen.value}


def scores(t: Target, row: Row) -> pd.DataFrame:
    """id, split, label, score and prediction of each row of a fit; of several classes `score_CLASS`."""
    texts = [t.args[k] for k in ("texts", "test_texts") if t.args.get(k)]
    usable = t.args.get("usable")  # of a control that leaves out items that others have
    known = row_tables.Collections(texts, [usable] if usable else t.args.get("features") or ())
    found = row_tables.of_fit(
        row, *known.of_fit(store.read_header(t.path), row), t.args["threshold"]
    )
    found = found[["id", "collection", "split", "label", "score", "prediction"]]
    classes = json.loads(row.get("classes") or "[]")
    each = np.asarray(row["kept_scores"], float).reshape(len(found), -1)
    if each.shape[1] > 1:
        found = found.assign(**{f"score_{c}": each[:, k] for k, c in enumerate(classes)})
    return found.reset_index(drop=True)


def matching_rows(table: pd.DataFrame, which: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table whose columns match patterns. Raises ActprobeError for an unknown column."""
    for name, pattern in which.items():
        if name not in table.columns:
            raise ActprobeError(f"no evaluation has a {name!r}; {nearest(name, table.columns)}")
        fits = [fnmatch.fnmatch(str(v), str(pattern)) for v in table[name]]
        table = table[fits]
    return table.reset_index(drop=True)
