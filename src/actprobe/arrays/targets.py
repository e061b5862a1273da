"""Config section `arrays` to targets: files of features, by the name of a source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Record, Target, target
from actprobe.config import matching
from actprobe.texts import TextArgs

STAGE = "arrays"
VERSION = 1
TABLES = ("csv", "tsv", "parquet")
TENSORS = ("npy", "npz", "safetensors")
_DATASET = "{dataset}"
_MEANT = ("text", "label", "group", "split", "pair")


@dataclass(frozen=True, kw_only=True)
class ArraySpec(Record):
    """What decides the features: the file by its digest, and what is taken of it.

    texts: key of the rows' order, or of all that is in the dataset where rows are matched by id. Of
    tables also the columns (None: all that hold numbers), the dataset's own column of ids, and its
    columns that mean something and are no features.
    """

    content: str
    format: str
    id: str | None
    texts: str
    array: str | None = None
    columns: tuple[str, ...] | None = None
    row_id: str | None = None
    meant: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ArrayArgs(Record):
    """Names as of activations (`model` is the source, site and position are empty), and the file."""

    source: str
    model: str
    texts: str
    file: str
    site: str = ""
    position: str = ""


ArrayTarget = Target[ArraySpec, ArrayArgs]
_Texts = Target[Any, TextArgs]


def targets(
    config: Mapping[str, Any], known: Mapping[str, list[Target[Any, Any]]], memo: DigestMemo
) -> list[ArrayTarget]:
    """One target per source and dataset; its artefact is read like activations.

    Site and position are empty: what tables group by these stays apart from other sources. Raises
    ConfigError for a name that something else has, for an option that does not go with the file, for
    a named dataset without a file, and for one file whose rows cannot be told apart by dataset.
    """
    texts = {t.item: t for t in known.get("texts", [])}
    taken = _taken(config, known)
    made = []
    for name, entry in (config.get("arrays") or {}).items():
        where = f"arrays.{name}"
        if name in taken:
            raise ConfigError(
                f"{where}: {taken[name]} is called {name} as well; give this source another name"
            )
        kind = _kind(entry, where)
        for dataset, path in _files(entry, texts, where):
            made.append(_target(config, name, entry, kind, path, texts[dataset], memo))
    return made


def _taken(
    config: Mapping[str, Any], known: Mapping[str, list[Target[Any, Any]]]
) -> dict[str, str]:
    """Names of models, SAEs, imports and dumps, and what has each."""
    found = {t.args["model"]: "a model" for t in known.get("activations", [])}
    for section, what in (("imports", "an import"), ("dumps", "a dump")):
        for name, entry in (config.get(section) or {}).items():
            found |= {name: what, entry.get("model"): f"the model of {what}"}
    found |= dict.fromkeys(config.get("models") or {}, "a model")
    return found | dict.fromkeys(config.get("saes") or {}, "an SAE")


def _kind(entry: Mapping[str, Any], where: str) -> str:
    """The format of the files by their ending, checked against the options."""
    kind = Path(entry["path"]).suffix.removeprefix(".").lower()
    if kind not in (*TABLES, *TENSORS):
        raise ConfigError(
            f"{where}.path: {entry['path']}; expected a file that ends with "
            f"{', '.join(f'.{k}' for k in (*TABLES, *TENSORS))}"
        )
    fits = {"columns": TABLES, "array": ("npz", "safetensors"), "id": (*TABLES, *TENSORS[1:])}
    for key, kinds in fits.items():
        if entry[key] is not None and kind not in kinds:
            remedy = "; np.savez writes features and ids into one .npz" if key == "id" else ""
            raise ConfigError(
                f"{where}.{key}: a .{kind} file has none; `{key}` is for {', '.join(kinds)}{remedy}"
            )
    return kind


def _files(
    entry: Mapping[str, Any], texts: Mapping[str, _Texts], where: str
) -> Iterator[tuple[str, str]]:
    """The datasets of an entry, each with its file."""
    pattern = os.path.expanduser(entry["path"])
    chosen = matching(entry["datasets"], texts, f"{where}.datasets", "dataset")
    if _DATASET not in pattern:
        _check_shared(entry, {d: texts[d] for d in chosen}, where)
    paths = {d: pattern.replace(_DATASET, d) for d in chosen}
    missing = [d for d in chosen if not os.path.isfile(paths[d])]
    named = [d for d in missing if d in entry["datasets"]]
    if named or len(missing) == len(chosen):
        first = (named or missing)[0]
        what = "is a folder" if os.path.isdir(paths[first]) else "does not exist"
        raise ConfigError(
            f"{where}: {paths[first]} {what}; expected a file with the features of {first}, or "
            f"`datasets` without it"
        )
    yield from ((d, paths[d]) for d in chosen if d not in missing)


def _check_shared(entry: Mapping[str, Any], texts: Mapping[str, _Texts], where: str) -> None:
    """Refuse one file for several datasets whose rows do not say which they belong to."""
    if len(texts) < 2:
        return
    names = ", ".join(list(texts)[:5])
    if entry["id"] is None:
        raise ConfigError(
            f"{where}: one file for {len(texts)} datasets ({names}), whose rows are told apart by "
            f"ids alone; write `id`, or a path with {_DATASET} in it"
        )
    counted = [d for d, t in texts.items() if "id" not in t.args.columns]
    if counted:
        raise ConfigError(
            f"{where}: one file for {len(texts)} datasets, and {counted[0]} has no ids of its own: "
            f"its rows are 0, 1, … as in other datasets; write `id` in its entry of `datasets`, or a "
            f"path with {_DATASET} in it"
        )


def _target(
    config: Mapping[str, Any],
    name: str,
    entry: Mapping[str, Any],
    kind: str,
    path: str,
    texts: _Texts,
    memo: DigestMemo,
) -> ArrayTarget:
    try:
        content, size = memo.sha256(path), os.path.getsize(path)
    except OSError as e:
        raise ConfigError(f"arrays.{name}: {path} cannot be read: {e.strerror}") from e
    columns, of_table = entry["columns"], kind in TABLES
    spec = ArraySpec(
        content=content,
        format=kind,
        id=entry["id"],
        # Rows without ids follow the texts; ids are a part of all that is in a dataset.
        texts=texts.args.rows if entry["id"] is None else texts.identity,
        array=entry["array"],
        columns=None if columns is None else tuple(sorted(set(columns))),
        row_id=texts.args.columns.get("id") if of_table else None,
        meant=_meant(texts) if of_table else (),
    )
    args = ArrayArgs(source=name, model=name, texts=texts.path, file=os.path.abspath(path))
    return target(
        config["cache_dir"], STAGE, VERSION, f"{name}/{texts.item}", spec,
        loader=name, item=texts.item, inputs=[texts], args=args, cost=float(size or 1),
        movable=True,
    )  # fmt: skip


def _meant(texts: _Texts) -> tuple[str, ...]:
    columns = texts.args.columns
    return tuple(sorted({columns[k] for k in _MEANT if k in columns}))
