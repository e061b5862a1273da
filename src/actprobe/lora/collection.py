"""The files of a LoRA collection while the plan is made: which there are, what identifies them, and
how they are cut into shards. Light: no file is opened except to digest it.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.lora.listing import because, expand, trouble

log = logging.getLogger(__name__)

# Names that say nothing: such a file is named after its folder.
_COMMON = ("adapter_model", "pytorch_lora_weights", "lora", "model")
UNREADABLE = "unreadable: "  # how the digest of a file begins that has none
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
    found: dict[str, str] = {}  # path -> folder that its id counts from
    for item in [source] if isinstance(source, str) else source:
        hits = list(expand(item, _ENDINGS[kind]))
        if not hits:
            raise ConfigError(f"{where}: no {' or '.join(_ENDINGS[kind])} file in {item}")
        found |= {path: base for base, path in hits}
    if not found:
        raise ConfigError(f"{where}: an empty list")
    by_id: dict[str, Member] = {}
    for m in _members(found):
        if m.id in by_id:
            raise ConfigError(f"{where}: {by_id[m.id].path} and {m.path} are both named {m.id!r}")
        by_id[m.id] = m
    return sorted(by_id.values(), key=lambda m: m.place)


def _members(found: Mapping[str, str]) -> Iterator[Member]:
    """The members of these paths, each below a folder that ids count from.

    A file with a common name is called like its folder, in a folder with several the first in the
    order of `_COMMON`; the `adapter_config.json` of a folder is that of its `adapter_model`.
    """
    stems: dict[str, set[str]] = defaultdict(set)
    for path in found:
        stems[os.path.dirname(path)].add(_stem(path))
    for path, base in found.items():
        folder, stem = os.path.dirname(path), _stem(path)
        relative = os.path.splitext(path[len(base) :].lstrip("/"))[0]
        if stem == next((n for n in _COMMON if n in stems[folder]), None):
            relative = os.path.dirname(relative) or os.path.basename(os.path.abspath(folder))
        config = os.path.join(folder, "adapter_config.json")
        own = stem == "adapter_model" or "adapter_model" not in stems[folder]
        relative = relative or os.path.basename(os.path.abspath(path))
        yield Member(relative, path, config if own and os.path.lexists(config) else None)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def digests(found: list[Member], identity: str, memo: DigestMemo) -> list[str]:
    """What identifies each member's content.

    identity "content": SHA-256 of its bytes (and its adapter_config.json's), remembered by path,
    size and time; "stat": size and modification time, no byte is read. Of a file that cannot be
    read it is `UNREADABLE` and the reason.
    """
    result, told = [], time.monotonic()
    for n, m in enumerate(found):
        parts = [_digest(m.path, identity, memo)]
        if m.config:
            parts.append(_digest(m.config, identity, memo, "adapter_config.json: "))
        result.append(joined(parts))
        if time.monotonic() - told > 5:
            told = time.monotonic()
            log.warning("digesting LoRA files for the first time: %d of %d", n + 1, len(found))
    return result


def joined(parts: Sequence[str]) -> str:
    """One digest of a file and, where there is one, its adapter_config.json."""
    if bad := next((p for p in parts if p.startswith(UNREADABLE)), None):
        return bad
    return parts[0] if len(parts) == 1 else _sha("+".join(parts))


def _digest(path: str, identity: str, memo: DigestMemo, what: str = "") -> str:
    if why := trouble(path):
        return f"{UNREADABLE}{what}{why}"
    try:
        return memo.sha256(path) if identity == "content" else stat_digest(os.stat(path))
    except OSError as e:
        return f"{UNREADABLE}{what}{because(path, e)}"


def stat_digest(st: os.stat_result) -> str:
    """What `identity: stat` knows a file by."""
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
            delimiter = "\t" if Path(path).suffix == ".tsv" else ","
            reader = csv.reader(f, delimiter=delimiter, strict=True)
            header = next(reader, [])
            for column in wanted:
                if header.count(column) != 1:
                    what = f"{header.count(column) or 'no'} column {column!r}"
                    have = ", ".join(header) or "nothing"
                    raise ConfigError(f"{where}: {path} has {what}; it has {have}")
            at = [header.index(c) for c in wanted]
            rows: dict[str, list[str]] = {}
            for cells in filter(None, reader):
                if not max(at) < len(cells) <= len(header):
                    raise ConfigError(
                        f"{where}: {path}, line {reader.line_num} has {len(cells)} cells, the first "
                        f"line {len(header)}"
                    )
                id, *values = (cells[i] for i in at)
                if id in rows:
                    raise ConfigError(f"{where}: {path} has two rows for {id!r}")
                rows[id] = values
    except csv.Error as e:
        raise ConfigError(f"{where}: {path}, line {reader.line_num}: {e}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where}: {path} cannot be read: {e}") from None
    return rows


def labels_digest(
    columns: Sequence[str], rows: Mapping[str, Sequence[str]], ids: Iterable[str]
) -> str:
    """Digest of what a label table says of these LoRAs; columns: what its values are read as."""
    said = [[id, rows[id]] for id in sorted(ids) if id in rows]
    return hashlib.sha256(keys.canonical_json([columns, said]).encode()).hexdigest()
