"""Caches of the evaluation-awareness scripts: their metadata against the rows of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.imports.layouts import INFO, METADATA, NOTE, read_json, read_object
from actprobe.texts import Texts
from actprobe.texts.templates import taken_apart

_GUESS = "You must guess whether"  # begins the instruction of the prompts that are no leak
_CUT = "..."


def check(folder: Path, pairs: bool, texts: Texts, path: str) -> None:
    """Raise BadInput unless metadata.json and layer_info.json fit the rows of a dataset in order.

    pairs: the cache holds an activation for each of two answers. path: of the texts artefact, whose
    header says how questions and answers were put together.
    """
    rows, info = _rows(folder), read_object(folder / INFO)
    expected = len(texts) // 2 if pairs else len(texts)
    for what, n in ((METADATA, len(rows)), (INFO, info.get("num_examples", len(rows)))):
        if n != expected:
            raise BadInput(
                f"{folder}/{what}: {n} examples, but dataset {texts.dataset} has {expected}"
            )
    template = store.read_header(path)["spec"].get("template") or "{text}"
    if pairs:
        if not texts.contrastive:
            raise BadInput(
                f"{folder}: holds test and deploy activations, but dataset {texts.dataset} is not "
                "in the contrastive schema"
            )
        if info.get("note") != NOTE:  # the positive answers of a dataset may all be the same
            _refuse_leak(folder, rows)
        _check_pairs(folder, rows, texts, template)
    else:
        _check_rows(folder, rows, texts, template)


def _rows(folder: Path) -> list[dict[str, Any]]:
    """metadata.json: a list of objects, what is read of them text."""
    rows = read_json(folder / METADATA)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{folder}/{METADATA}: expected a list of objects")
    for i, row in enumerate(rows):
        for key in ("question", "test_answer", "deploy_answer"):
            if not isinstance(row.get(key, ""), str):
                raise BadInput(
                    f"{folder}/{METADATA}: row {i}: {key} is {row[key]!r}, expected text"
                )
    return rows


def _refuse_leak(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Validation rows that were cached once with each dummy answer, "(A)" for test and "(B)" for
    deployment: their label chose the text that was read."""
    leaky = all(r.get("test_answer") == "(A)" and r.get("deploy_answer") == "(B)" for r in rows)
    if leaky and not any(_GUESS in r.get("question", "") for r in rows):
        raise BadInput(
            f"{folder}: a leaky validation cache: every test activation was read after '(A)' and "
            "every deploy activation after '(B)', so that the label stands in the text; cache the "
            "questions alone"
        )


def positive_first(texts: Texts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the positive and of the negative answer of each pair, in the order of the pairs."""
    assert texts.label is not None
    return np.flatnonzero(texts.label == 1), np.flatnonzero(texts.label == 0)


def _check_pairs(
    folder: Path, rows: Sequence[Mapping[str, Any]], texts: Texts, template: str
) -> None:
    assert texts.answer is not None
    for i, (row, *at) in enumerate(zip(rows, *positive_first(texts), strict=True)):
        for key, k in zip(("test_answer", "deploy_answer"), at, strict=True):
            answer = texts.answer[k]
            question = taken_apart(template, texts.text[k], answer)
            if question not in row.get("question", "") or row.get(key) != answer:
                raise BadInput(
                    f"{folder}/{METADATA}: row {i} is {row.get('question', '')[:60]!r} with "
                    f"{key} {row.get(key)!r}, but dataset {texts.dataset} has {question[:60]!r} "
                    f"with {answer!r}"
                )


def _check_rows(
    folder: Path, rows: Sequence[Mapping[str, Any]], texts: Texts, template: str
) -> None:
    answers = [""] * len(texts) if texts.answer is None else texts.answer
    for i, (row, text, answer) in enumerate(zip(rows, texts.text, answers, strict=True)):
        question = taken_apart(template, text, answer)
        said = row.get("question", "")
        if not question.startswith(said.removesuffix(_CUT)):
            raise BadInput(
                f"{folder}/{METADATA}: row {i} is {said[:60]!r}, but dataset {texts.dataset} has "
                f"{question[:60]!r}"
            )
        if texts.label is not None and row.get("type") not in (None, texts.classes[texts.label[i]]):
            raise BadInput(
                f"{folder}/{METADATA}: row {i} is of type {row['type']!r}, but in dataset "
                f"{texts.dataset} it is {texts.classes[texts.label[i]]!r}"
            )
