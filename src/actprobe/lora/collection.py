"""The files of a LoRA collection while the plan is made: which there are, what identifies them, and
how they are cut into shards. Light: no file is opened except to digest it.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe import keys
from actprobe.errors import ConfigError
from actprobe.keys import DigestMemo

log = logging.getLogger(__name__)

# Names that say nothing: such a file is named after its folder.
_COMMON = ("pytorch_lora_weights", "adapter_model", "model", "lora")
_ENDINGS = {"files": (".safetensors",), "tables": (".arrow", ".parquet")}


@dataclass(frozen=True)
class Member:
    """One file of a collection.

    id: path below the collection's folder without ending ("cat/07"); a file with a name that
    every LoRA has is called like its folder. config: the PEFT `adapter_config.json` beside it.
    """

    id: str
    path: str
    config: str | None = None

    @property
    def place(self) -> str:
        """Where the file stands in the collection's order: 64 bits of its id's SHA-256.

        The order of hashes makes shards that depend on the files in them alone.
        """
        digest = hashlib.sha256(self.id.encode()).digest()
        return format(int.from_bytes(digest[:8], "big"), "064b")


def members(name: str, options: Mapping[str, Any]) -> list[Member]:
    """The files of `loras.{name}`, ordered by `place`.

    Raises ConfigError when an item names none or two of them have one id.
    """
    kind = "tables" if options.get("tables") else "files"
    where, source = f"loras.{name}.{kind}", options[kind]
    found: dict[str, Member] = {}
    for item in [source] if isinstance(source, str) else source:
        hits = list(_expand(item, _ENDINGS[kind]))
        if not hits:
            raise ConfigError(f"{where}: no {' or '.join(_ENDINGS[kind])} file in {item}")
        for base, path in hits:
            m = _member(base, path)
            if m.id in found and found[m.id].path != path:
                raise ConfigError(f"{where}: {found[m.id].path} and {path} are both named {m.id!r}")
            found[m.id] = m
    if not found:
        raise ConfigError(f"{where}: an empty list")
    return sorted(found.values(), key=lambda m: m.place)


def _expand(item: str, endings: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    """Folder that ids count from, and path, of every file that an item names."""
    if os.path.isdir(item):
        for path in _below(item, endings):
            yield item, path
    elif glob.has_magic(item):
        base = os.path.dirname(re.split(r"[*?[]", item)[0])
        for hit in glob.iglob(item, recursive=True):
            for path in _below(hit, endings) if os.path.isdir(hit) else [hit]:
                if path.endswith(endings):
                    yield base, path
    elif os.path.exists(item):
        yield os.path.dirname(item), item


def _below(folder: str, endings: tuple[str, ...]) -> Iterable[str]:
    for inside, _, names in os.walk(folder, followlinks=True):
        for n in names:
            if n.endswith(endings):
                yield os.path.join(inside, n)


def _member(base: str, path: str) -> Member:
    relative = os.path.splitext(path[len(base) :].lstrip("/"))[0]
    folder, _, stem = relative.rpartition("/")
    if stem in _COMMON and folder:
        relative = folder
    elif stem in _COMMON:
        relative = os.path.basename(os.path.dirname(os.path.abspath(path)))
    config = os.path.join(os.path.dirname(path), "adapter_config.json")
    return Member(relative, path, config if os.path.exists(config) else None)


def digests(found: list[Member], identity: str, memo: DigestMemo) -> list[str]:
    """What identifies each member's content.

    identity "content": SHA-256 of its bytes (and its adapter_config.json's), remembered by path,
    size and time; "stat": size and modification time, no byte is read.
    """
    result, told = [], time.monotonic()
    for n, m in enumerate(found):
        parts = [_digest(p, identity, memo) for p in (m.path, m.config) if p]
        result.append(parts[0] if len(parts) == 1 else _sha("+".join(parts)))
        if time.monotonic() - told > 5:
            told = time.monotonic()
            log.warning("digesting LoRA files for the first time: %d of %d", n + 1, len(found))
    return result


def _digest(path: str, identity: str, memo: DigestMemo) -> str:
    if identity == "content":
        return memo.sha256(path)
    st = os.stat(path)
    return f"{st.st_size}-{st.st_mtime_ns}"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def together(found: Iterable[Member], identities: Iterable[str]) -> str:
    """One digest of the ids and contents of these members."""
    return _sha(keys.canonical_json([[m.id, d] for m, d in zip(found, identities, strict=True)]))


def shards(places: list[str], size: int) -> dict[str, slice]:
    """Cut ordered places into shards of at most `size`: names and slices.

    A shard holds all places that begin with the same bits, as few bits as do. A new file therefore
    changes the one shard that it falls into (or splits it), wherever it sorts and however many
    there are. The shard of a collection that fits into one is called "all".
    """
    result: dict[str, slice] = {}

    def cut(prefix: str, start: int, stop: int) -> None:
        if stop - start <= size or len(prefix) == 64:
            if stop > start:
                result[prefix or "all"] = slice(start, stop)
            return
        at = len(prefix)
        middle = next((i for i in range(start, stop) if places[i][at] == "1"), stop)
        cut(prefix + "0", start, middle)
        cut(prefix + "1", middle, stop)

    cut("", 0, len(places))
    return result


def labels(name: str, options: Mapping[str, Any], columns: Iterable[str]) -> dict[str, list[str]]:
    """Rows of the label table of `loras.{name}`: id -> values of `columns`.

    Raises ConfigError naming the table and the missing column or the id that stands there twice.
    """
    path, where = options.get("labels"), f"loras.{name}.labels"
    if not path:
        raise ConfigError(f"{where}: a table of labels (csv) is needed to probe this collection")
    wanted = [options["id"], *columns]
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f, delimiter="\t" if Path(path).suffix == ".tsv" else ",")
            for column in wanted:
                if column not in (reader.fieldnames or ()):
                    have = ", ".join(reader.fieldnames or ()) or "nothing"
                    raise ConfigError(f"{where}: {path} has no column {column!r}; it has {have}")
            rows: dict[str, list[str]] = {}
            for row in reader:
                if row[wanted[0]] in rows:
                    raise ConfigError(f"{where}: {path} has two rows for {row[wanted[0]]!r}")
                rows[row[wanted[0]]] = [row[c] or "" for c in wanted[1:]]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ConfigError(f"{where}: {path} cannot be read: {e}") from None
    return rows


def labels_digest(
    columns: Sequence[str], rows: Mapping[str, Sequence[str]], ids: Iterable[str]
) -> str:
    """Digest of what a label table says of these LoRAs; columns: what its values are read as."""
    said = [[id, rows[id]] for id in sorted(ids) if id in rows]
    return hashlib.sha256(keys.canonical_json([columns, said]).encode()).hexdigest()
