"""Labels of answers: by a regular expression, by comparison with a column, or by a function of the
user's."""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import BadInput, ConfigError
from actprobe.base.keys import DigestMemo

_FUNCTION = "label"  # its name in the user's file
_KINDS = (str, int, bool, type(None))


def spec(
    label: Mapping[str, Any] | None, memo: DigestMemo, where: str
) -> tuple[dict[str, Any] | None, str | None]:
    """What of the config key `label` is in the key of the texts, and the file of the function.

    Raises ConfigError for keys that contradict each other, a bad expression and a missing file.
    """
    if label is None:
        return None, None
    matches, equals, function = label.get("matches"), label["equals"], label.get("function")
    if function is None:
        if label["columns"]:
            raise ConfigError(f"{where}.columns: they are for `function`; take them out")
        if matches is None and equals is None:
            raise ConfigError(f"{where}: give `matches`, `equals` or `function`")
        _compiled(matches, where)
        return {"matches": matches, "equals": equals}, None
    if matches is not None or equals is not None:
        other = "matches" if matches is not None else "equals"
        raise ConfigError(f"{where}: `function` and `{other}` exclude each other")
    path = os.path.expanduser(function)
    if not os.path.isfile(path):
        raise ConfigError(
            f"{where}.function: {path} is no file; expected a Python file with label(row)"
        )
    return {"function": memo.sha256(path), "columns": sorted(label["columns"])}, path


def _compiled(expression: str | None, where: str) -> re.Pattern[str] | None:
    if expression is None:
        return None
    try:
        found = re.compile(expression)
    except re.error as e:
        raise ConfigError(
            f"{where}.matches: {expression!r} is no regular expression: {e}"
        ) from None
    if found.groups > 1:
        raise ConfigError(
            f"{where}.matches: {expression!r} has {found.groups} groups; expected one at most: write "
            "(?:…) for the others"
        )
    return found


def read(
    spec: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], file: str | None, where: str
) -> list[Any]:
    """The label of each row: a string, a whole number, a boolean, or None where there is none.

    rows: each with `id`, `messages`, `answer` and the columns by name. Raises BadInput naming the row
    for what the user's function raises or gives.
    """
    if "function" in spec:
        assert file is not None
        function = _function(file, spec["function"], where)
        return [_called(function, row, where) for row in rows]
    expression = _compiled(spec["matches"], where)
    return [_by_words(expression, spec["equals"], row) for row in rows]


def _by_words(
    expression: re.Pattern[str] | None, column: str | None, row: Mapping[str, Any]
) -> Any:
    said = row["answer"]
    if expression is not None:
        m = expression.search(said)
        if column is None and not expression.groups:
            return m is not None
        if m is None:
            return None
        said = m[expression.groups]
        if column is None:
            return said
    right = row[str(column)]
    if right is None or said is None:
        return None
    return _plain(said) == _plain(str(right))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _function(file: str, digest: str, where: str) -> Callable[[dict[str, Any]], Any]:
    keys.require_unchanged(keys.file_sha256(file), digest, f"{where}.function: {file}")
    try:
        found = runpy.run_path(file).get(_FUNCTION)
    except Exception as e:
        raise ConfigError(f"{where}.function: {file}: {type(e).__name__}: {e}") from e
    if not callable(found):
        raise ConfigError(f"{where}.function: {file} has no function {_FUNCTION}(row)")
    return found


def _called(function: Callable[[dict[str, Any]], Any], row: Mapping[str, Any], where: str) -> Any:
    try:
        value = function(dict(row))
    except Exception as e:
        raise BadInput(f"{where}.function: row {row['id']!r}: {type(e).__name__}: {e}") from e
    if type(value) not in _KINDS:
        raise BadInput(
            f"{where}.function: row {row['id']!r}: it gave a {type(value).__name__}; expected a string, "
            "a whole number, a boolean or None"
        )
    return value
