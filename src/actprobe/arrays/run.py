"""The arrays stage: features from a file, checked and put into the order of a dataset.

Memory holds one slice of a few megabytes, and of a csv or tsv file all of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe import texts
from actprobe.arrays import parquet, tables, tensors
from actprobe.arrays.features import Checked, Features
from actprobe.arrays.targets import ArraySpec, ArrayTarget
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.files import UNKNOWN
from actprobe.texts import Texts
from actprobe.texts.values import listed, shown

log = logging.getLogger(__name__)


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make the targets of a batch one after the other; the disk is the limit, not threads."""
    memo = DigestMemo(config["cache_dir"])
    with Outcome(batch, config["on_bad_dataset"], store.write_bad) as out:
        out.make(batch.targets, partial(_make, memo=memo))


def _make(t: ArrayTarget, memo: DigestMemo) -> Path:
    file, rows = Path(t.args.file), texts.load(t.args.texts)
    try:
        found = memo.sha256(file)
    except OSError as e:  # it could be read for the plan
        raise ActprobeError(f"arrays.{t.loader}: {file}: {e.strerror}") from e
    keys.require_unchanged(found, t.spec.content, f"arrays.{t.loader}: {file}")
    with opened(file, t.spec, t.item) as features:
        return _write(t, file, rows, features)


def opened(file: Path, spec: ArraySpec, dataset: str) -> AbstractContextManager[Features]:
    """The features of a file."""
    readers = {"parquet": parquet.opened, "csv": tables.opened, "tsv": tables.opened}
    return readers.get(spec.format, tensors.opened)(file, spec, dataset)


def places(found: Features, rows: Texts, file: Path) -> NDArray[np.int64]:
    """The row of the dataset that each row of a file belongs to, -1 for one of no row [n].

    Raises BadInput unless every row of the dataset has one.
    """
    if found.ids is None:
        if found.n != len(rows):
            raise BadInput(
                f"{file}: {found.n} rows, but dataset {rows.dataset} has {len(rows)}; expected one of "
                "each in its order, or ids to match them by (config key `id`)"
            )
        return np.arange(found.n)
    at = {name: i for i, name in enumerate(rows.id)}
    where = np.array([at.get(name, -1) for name in found.ids], np.int64)
    there = np.zeros(len(rows), bool)
    there[where[where >= 0]] = True
    if not there.all():
        first = rows.id[there.argmin()]
        raise BadInput(
            f"{file}: no row for {(~there).sum()} of {len(rows)} ids of dataset {rows.dataset}, first "
            f"{shown(first)}; its own ids are {listed(found.ids, 3)}"
        )
    return where


def _write(t: ArrayTarget, file: Path, rows: Texts, found: Features) -> Path:
    where = places(found, rows, file)
    extra = int((where < 0).sum())
    facts = {
        "provenance": "arrays",
        "file": file.name,
        "columns": found.columns,
        "left_out": found.left_out,
        "n_extra": extra,
    }
    shapes = {"n_tokens": ((len(rows),), "int32"), "x": ((len(rows), found.d), "f4")}
    with store.Part(t.path, t.record, shapes, 1, facts, {"x": {"dtype": "float32"}}) as part:
        if part.pending:
            part["n_tokens"][:] = np.full(len(rows), UNKNOWN, np.int32)
            _fill(part, found, where, str(file))
            part.mark(0)
        _tell(t, found, extra)
        return part.finish()


def _fill(part: store.Part, found: Features, where: NDArray[np.int64], file: str) -> None:
    """Copy the rows that the dataset has to their places."""
    check, first = Checked(found, file), 0
    for pieces in found.blocks():
        n = len(pieces[0].values)
        at = where[first : first + n]
        order = np.argsort(at, kind="stable")
        order = order[at[order] >= 0]
        values = check.rows(pieces, order, first)
        breaks = np.flatnonzero(np.diff(at[order]) != 1) + 1
        for run in np.split(np.arange(len(order)), breaks) if len(order) else ():
            begin = int(at[order[run[0]]])
            part["x"][begin : begin + len(run)] = values[run]
        first += n
    check.finish()


def _tell(t: ArrayTarget, found: Features, extra: int) -> None:
    words = [f"{found.d} features"]
    if found.left_out:
        words.append(f"columns left out: {listed(found.left_out, 12)}")
    if extra:
        words.append(f"{extra} rows of ids that dataset {t.item} does not have")
    log.info("%s: %s of %s", t.name, "; ".join(words), t.args.file)
