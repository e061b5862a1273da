"""What the cache holds for a target: there, missing, stale and why, begun, damaged."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, Damaged
from actprobe.cache.plan.targets import Target
from actprobe.cache.store import files, header

THERE, FINISHED, MISSING, STALE, DAMAGED = "there", "finished", "missing", "stale", "damaged"
ELSEWHERE = "elsewhere"  # under another name: of a dataset or a model that was renamed
IN_PLACE = (FINISHED, ELSEWHERE)  # nothing is computed: a rename or a link makes them


@dataclass(frozen=True)
class State:
    """What the cache holds for a target: `status` is one of the words above, `why` the words.

    For a target that is there, `why` is empty, or the reason why it is a tombstone; for one that is
    there under another name, `why` is the path.
    """

    status: str
    why: str = ""

    @property
    def there(self) -> bool:
        return self.status == THERE


class Cache:
    """Looks targets up in the cache; one directory listing per folder, kept for the plan."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[str]]] = {}
        self._states: dict[str, State] = {}
        self._of_key: dict[str, dict[str, list[str]]] = {}

    def _names(self, folder: str) -> dict[str, list[str]]:
        """Artefact files of a folder: base name without key and extension -> file names."""
        if folder not in self._folders:
            found: dict[str, list[str]] = defaultdict(list)
            try:
                for entry in os.scandir(folder):
                    found[entry.name.rsplit(".", 2)[0]].append(entry.name)
            except OSError:
                pass
            self._folders[folder] = found
        return self._folders[folder]

    def state(self, t: Target) -> State:
        """The target's state; cheap checks only (existence, header, length)."""
        if t.path not in self._states:
            self._states[t.path] = self._look(t)
        return self._states[t.path]

    def _twin(self, t: Target) -> str | None:
        """A whole file of the target's key under another name, in the same stage's folder."""
        tail = f"{keys.short(t.key)}{Path(t.path).suffix}"
        root = t.path.removesuffix(f"/{t.name}.{tail}")
        if root not in self._of_key:
            found: dict[str, list[str]] = defaultdict(list)
            for folder, _, names in os.walk(root):
                for name in names:
                    found[".".join(name.rsplit(".", 2)[1:])].append(f"{folder}/{name}")
            self._of_key[root] = found
        for path in sorted(self._of_key[root].get(tail, ())):
            with contextlib.suppress(Damaged, OSError):
                if path != t.path and not header.quick_check(path, t.key)["bad"]:
                    return path
        return None

    def private_parts(self, path: str) -> list[str]:
        """Parts of an artefact that processes made which found its own taken (`files.claim`)."""
        folder, name = os.path.split(path)
        found = self._names(folder).get(name, ())
        return [f"{folder}/{p}" for p in found if p.endswith(".part")]

    def _look(self, t: Target) -> State:
        folder, name = os.path.split(t.path)
        siblings = self._names(folder).get(name.rsplit(".", 2)[0], ())
        if name in siblings:
            if t.raw:
                return _raw_state(t)
            try:
                return State(THERE, header.quick_check(t.path, t.key)["bad"] or "")
            except Damaged as e:
                return State(DAMAGED, str(e).partition(": ")[2])
            except IsADirectoryError:
                return State(DAMAGED, "a folder, expected a file")
            except FileNotFoundError:
                pass
            except OSError as e:
                raise ActprobeError(f"{t.path} cannot be read: {e.strerror}") from e
        if not t.raw and os.path.exists(files.part_path(t.path)):
            if files.finished_part(t.path, t.key):
                return State(FINISHED)
            return State(MISSING, "begun by an earlier run, will be resumed")
        if t.movable and (twin := self._twin(t)):
            return State(ELSEWHERE, twin)
        old = [f"{folder}/{s}" for s in siblings if s != name and s.endswith(Path(name).suffix)]
        if old and not t.raw:
            return State(STALE, explain(t, max(old, key=_mtime)))
        return State(MISSING)


def _raw_state(t: Target) -> State:
    """A raw file has no header; its length is what can be checked cheaply, where it is known."""
    size, expected = os.path.getsize(t.path), getattr(t.args, "size", None)
    if expected is not None and size != expected:
        return State(DAMAGED, f"{size} bytes, expected {expected}")
    return State(THERE)


def _mtime(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def explain(t: Target, old: str) -> str:
    """In words, which part of the target's spec differs from the one inside the file `old`."""
    try:
        before = header.read_header(old)["spec"]
    except (Damaged, OSError):
        return "the older file cannot be read"
    changes = list(_differences(before, t.record, ""))
    return "; ".join(changes[:3]) + ("; …" if len(changes) > 3 else "") or "spec changed"


def _differences(a: Any, b: Any, path: str) -> Iterable[str]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for k in sorted({*a, *b}):
            yield from _differences(a.get(k), b.get(k), f"{path}.{k}" if path else k)
    elif a != b:
        label = "stage version" if path == "version" else path
        if _is_digest(a) and _is_digest(b) and len(a) == 64:
            yield f"{label} changed"
        elif _are_digests(a) and _are_digests(b):
            if {*a} == {*b}:
                yield f"{label}: the same in another order"
            else:
                yield f"{label}: {len({*b} - {*a})} new, {len({*a} - {*b})} gone, of {len(a)}"
        else:
            yield f"{label} {_word(a)} → {_word(b)}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{12,}", value) is not None


def _are_digests(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_digest, value))


def _word(value: Any) -> str:
    text = value[:8] if _is_digest(value) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"
