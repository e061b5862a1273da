"""Contrastive pairs: a question with two answers becomes two rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actprobe.texts.checks import Place, check_texts

CLASSES = ["negative", "positive"]
_MANY = 20  # different answers from which they are taken for sentences, not letters
_LONG = 200  # characters of an answer, likewise


@dataclass(frozen=True)
class Pairs:
    """Two rows for each question, next to each other.

    columns: those of the file, every value twice; answer, label (1: positive), pair: [2n]; place:
    where the rows stand.
    """

    columns: dict[str, list[Any]]
    answer: list[str]
    label: list[int]
    pair: list[str]
    place: Place


def expand(
    columns: Mapping[str, list[Any]],
    answers: Sequence[str],
    positive: str,
    ids: Sequence[str],
    place: Place,
) -> Pairs:
    """One row for each answer.

    answers: the two columns with answers; positive: the one of them whose answers are class 1. The
    rows of a pair stand in the order of their answers' text, so that neither the rows nor their
    order tell which answer is the positive one. Raises BadInput for a missing or empty answer and
    for two equal ones.
    """
    for column in answers:
        check_texts(columns[column], replace(place, file=f"{place.file}, column {column!r}"))
    first, second = (columns[c] for c in answers)
    same = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a == b]
    if same:
        raise place.bad(f"both answers are {first[same[0]]!r}; expected two different ones", same)
    order = [
        [(answers[0], a), (answers[1], b)] if a < b else [(answers[1], b), (answers[0], a)]
        for a, b in zip(first, second, strict=True)
    ]
    return Pairs(
        {name: _twice(values) for name, values in columns.items()},
        [answer for pair in order for _, answer in pair],
        [int(column == positive) for pair in order for column, _ in pair],
        _twice(ids),
        replace(place, rows=_twice(place.rows)),
    )


def _twice(values: Sequence[Any]) -> list[Any]:
    return [v for v in values for _ in range(2)]


def counts(answer: Sequence[str], label: Sequence[int]) -> dict[str, list[int]]:
    """How often each answer is [negative, positive]; empty where answers are sentences."""
    different = sorted(set(answer))
    if len(different) > _MANY or max(map(len, different), default=0) > _LONG:
        return {}
    found = {a: [0, 0] for a in different}
    for (a, y), n in Counter(zip(answer, label, strict=True)).items():
        found[a][y] += n
    return found
