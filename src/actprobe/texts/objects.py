"""Rows as JSON: one document, or one value per line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from actprobe.texts.checks import Place, require_columns
from actprobe.texts.values import listed


class _NotJson(str):
    """NaN, Infinity or -Infinity, which Python reads and JSON does not have."""


class _Repeated(dict[str, Any]):
    """An object in which a key stands twice; `keys_twice` are these keys."""

    keys_twice: frozenset[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = _Repeated(found)
    repeated.keys_twice = frozenset(k for k, n in Counter(k for k, _ in pairs).items() if n > 1)
    return repeated


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_NotJson)


def decode(text: str) -> Any:
    """A JSON text as the readers take it: NaN and Infinity, and keys that stand twice, are marked.

    Raises ValueError.
    """
    return _DECODER.decode(text)


def read_json(
    text: str, ending: str, wanted: Mapping[str, str], place: Place
) -> dict[str, list[Any]]:
    """Columns of a list of objects, or of an object of equally long lists.

    ending: ".zst" in a packed file, for messages. Raises BadInput.
    """
    try:
        content = _DECODER.decode(text)
    except ValueError as e:
        hint = ""
        if "Extra data" in str(e):
            hint = f"; for one object per line write `format: jsonl{ending}`"
        raise place.bad(f"not JSON: {e}{hint}") from e
    if isinstance(content, dict):
        return _columns(content, wanted, place)
    if not isinstance(content, list):
        raise place.bad(f"{_kind(content)}; expected a list of objects")
    return _rows(content, wanted, place, "")


def read_jsonl(
    text: str, ending: str, wanted: Mapping[str, str], place: Place
) -> tuple[dict[str, list[Any]], list[int]]:
    """Columns of one object per line, and the line of each. Lines end with LF or CRLF alone."""
    records, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip(" \t\r"):  # JSON's white space; more of it would be content
            try:
                records.append(_DECODER.decode(line))
            except ValueError as e:
                hint = "" if records else _document(text, ending)
                raise place.bad(f"line {number} is not JSON: {e}{hint}") from e
            lines.append(number)
    at = Place(place.dataset, place.file, range(len(records)), lines)
    return _rows(records, wanted, at, ending), lines


def _document(text: str, ending: str) -> str:
    try:
        _DECODER.decode(text)
    except ValueError:
        return ""
    return f"; for one list over several lines write `format: json{ending}`"


def _columns(
    content: Mapping[str, Any], wanted: Mapping[str, str], place: Place
) -> dict[str, list[Any]]:
    lengths = {len(v) if isinstance(v, list) else -1 for v in content.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise place.bad(
            "expected a list of objects, or an object of equally long lists "
            '(pandas writes the first with `to_json(path, orient="records")`)'
        )
    repeated = content.keys_twice if isinstance(content, _Repeated) else ()
    require_columns(wanted, [*content, *repeated], place)
    at = Place(place.dataset, place.file, range(len(next(iter(content.values())))))
    return {c: _json_only(content[c], c, at) for c in wanted.values()}


def _rows(
    records: Sequence[Any], wanted: Mapping[str, str], place: Place, ending: str
) -> dict[str, list[Any]]:
    place = place if place.rows else Place(place.dataset, place.file, range(len(records)))
    read = set(wanted.values())
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            hint = ""
            if isinstance(record, list) and place.lines:
                hint = f"; for one list of objects write `format: json{ending}`"
            raise place.bad(f"{_kind(record)}; expected an object{hint}", [i])
        if isinstance(record, _Repeated) and (twice := read & record.keys_twice):
            raise place.bad(f"the key {listed(sorted(twice))} stands twice; expected it once", [i])
    if records:
        require_columns(wanted, list(dict.fromkeys(k for r in records for k in r)), place)
    return {c: _json_only([r.get(c) for r in records], c, place) for c in wanted.values()}


def _json_only(values: list[Any], column: str, place: Place) -> list[Any]:
    bad = [i for i, v in enumerate(values) if isinstance(v, _NotJson)]
    if bad:
        raise place.bad(
            f"column {column!r} holds {values[bad[0]]}, which JSON does not have; write null for a "
            "missing value, or a string",
            bad,
        )
    return values


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return f"found {names.get(type(value), 'a number')}"
