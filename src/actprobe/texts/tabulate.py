"""From the bytes of a dataset's files to its table and the facts about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from actprobe.texts import (
    checks,
    columns,
    composing,
    contrastive,
    facts,
    filters,
    labels,
    parting,
    sampling,
    table,
    templates,
    turns,
)
from actprobe.texts import spans as annotated
from actprobe.texts.chats import dumps
from actprobe.texts.checks import Place
from actprobe.texts.parting import Rows
from actprobe.texts.read import Content, read
from actprobe.texts.records import TextSpec, TurnSpec
from actprobe.texts.spans import Frame, Spans
from actprobe.texts.values import cell_text


def tabulate(
    files: Sequence[tuple[str, bytes]], spec: TextSpec, dataset: str
) -> tuple[pa.Table, dict[str, Any]]:
    """The table of a dataset (`table.made`) and the facts for its header.

    files: name and bytes of each file, whose rows follow each other.

    facts: those of `facts.facts` and `table.identity`; multiline, rows whose text in the file has a
    line break; quoting, see `read.Content`; sample, chats, spans where there are any. Raises
    BadInput, also for what a library raises.
    """
    called = files[0][0] if len(files) == 1 else f"{files[0][0]} and {len(files) - 1} more files"
    place = Place(dataset, called)
    with place.guard():
        content, place = _read(files, spec, place)
        return _Table(content, spec, place).made()


def _read(
    files: Sequence[tuple[str, bytes]], spec: TextSpec, place: Place
) -> tuple[Content, Place]:
    """The columns of all files, one after the other."""
    wanted = columns.wanted(spec)
    found = [read(data, spec, wanted, replace(place, file=name)) for name, data in files]
    content = found[0]
    if len(found) > 1:
        names = list(content.columns)
        content = Content({c: [v for f in found for v in f.columns[c]] for c in names})
    n = len(next(iter(content.columns.values())))
    return content, replace(place, rows=range(n), lines=content.lines)


class _Table:
    """The making of one table."""

    def __init__(self, content: Content, spec: TextSpec, place: Place):
        self.spec, self.quoting = spec, content.quoting
        self.columns, self.place = filters.chosen(content.columns, spec, place)
        self.facts: dict[str, Any] = {}
        self.values: np.ndarray | None = None
        self._sample()

    def _sample(self) -> None:
        sample = self.spec.sample
        if sample is None:
            return
        by = sample.column
        n = len(self.place.rows)
        strata = [cell_text(v) for v in self.columns[by]] if by is not None else [None] * n
        digests = columns.digests(self.columns, self.spec)
        kept = sampling.choose(digests, strata, sample, self.place)
        self.facts["sample"] = sampling.told(strata, kept, sample)
        self.columns, self.place = filters.taken(self.columns, kept, self.place)

    def made(self) -> tuple[pa.Table, dict[str, Any]]:
        """The table, and the facts."""
        ids = self._ids()
        pairs = self._pairs(ids)
        if pairs is not None:
            ids = [f"{pair}.{i % 2}" for i, pair in enumerate(pairs.pair)]
        rows = self._rows(ids, None if pairs is None else pairs.answer)
        multiline = facts.lines(self._written(rows)[:: 2 if pairs else 1])
        label, classes = self._labels(pairs)
        optional = self._optional(pairs)
        spans = None
        if self.spec.spans:
            values = self.columns[self.spec.spans.column]
            spans = annotated.read(values, self.spec.spans, rows.frames, self.place)
            if self.spec.spans.rows:
                rows, label, classes, optional = self._spans(rows, label, classes, optional, spans)
                spans = None
        if turns := self.spec.turns:
            rows, label, classes, spans, optional = self._turns(
                turns, rows, label, classes, optional
            )
        return self._table(rows, label, classes, spans, optional, pairs, multiline)

    def _pairs(self, ids: Sequence[str]) -> contrastive.Pairs | None:
        answers, positive = self.spec.answers, self.spec.positive
        if not answers:
            return None
        assert positive is not None
        pairs = contrastive.expand(self.columns, answers, positive, ids, self.place)
        self.columns, self.place = pairs.columns, pairs.place
        return pairs

    def _rows(self, ids: list[str], answers: Sequence[str] | None) -> Rows:
        if self.spec.chat:
            made = composing.compose(self.columns, self.spec, answers, self.place)
            texts = [c.text for c in made.chats]
            frames = [
                Frame(t, 0, len(t), c, first)
                for t, c, first in zip(texts, made.chats, made.first, strict=True)
            ]
            digests = [c.digest for c in made.chats]
            return Rows(ids, texts, digests, frames, made.chats, made.raws)
        template, column = self.spec.template, self._column()
        if template is None:
            assert column is not None
            digests = checks.check_texts(column, self.place)
            return Rows(ids, column, digests, [Frame(t, 0, len(t)) for t in column])
        text = self.spec.text
        texts = composing.fill(template, self.columns, text, answers, self.place)
        digests = checks.check_texts(texts, self.place)
        frames = [Frame(t, 0, len(t)) for t in texts]
        if self.spec.spans and column is not None:
            starts = templates.starts(template, self.columns, len(texts))
            frames = [
                Frame(t, at, at + len(own))
                for t, at, own in zip(texts, starts, column, strict=True)
            ]
        return Rows(ids, texts, digests, frames)

    def _written(self, rows: Rows) -> Sequence[str]:
        """The texts as the file has them, where it has them whole."""
        if rows.chats is not None:
            return ["".join(m.get("content", "") for m in c.messages) for c in rows.chats]
        column = self._column()
        return rows.texts if column is None else column

    def _column(self) -> list[str] | None:
        """The column of texts, where the rows are made of it."""
        template = self.spec.template
        if template is not None and templates.TEXT not in templates.fields(template):
            return None
        return self.columns[self.spec.text]

    def _ids(self) -> list[str]:
        """The ids of the rows: a column's, or their numbers in the file."""
        column = self.spec.id
        if column is None:
            return [str(row) for row in self.place.rows]
        return checks.check_ids(checks.names(self.columns[column], column, self.place), self.place)

    @property
    def _is_written(self) -> bool:
        """True where cells have no types: csv and tsv."""
        return self.spec.format.startswith(("csv", "tsv"))

    def _labels(self, pairs: contrastive.Pairs | None) -> tuple[np.ndarray | None, list[str]]:
        column = self.spec.label
        if pairs is not None:
            return np.array(pairs.label, np.int32), list(contrastive.CLASSES)
        if column is None:
            return None, []
        values, kind = self.columns[column], self.spec.label_kind
        written = self._is_written
        if not labels.are_values(values, kind, self.spec.positive, written, self.place):
            return self._encoded(values, column, self.place)
        self.values = labels.as_values(values, written, self.place)
        low, high = float(self.values.min()), float(self.values.max())
        self.facts |= {"kind": "continuous", "values": {"least": low, "most": high}}
        return None, []

    def _encoded(
        self, values: list[Any], column: str, place: Place
    ) -> tuple[np.ndarray, list[str]]:
        if self._is_written:
            return labels.encode_written(values, self.spec.positive, place, column)
        return labels.encode(values, self.spec.positive, place)

    def _optional(self, pairs: contrastive.Pairs | None) -> dict[str, list[str | None]]:
        """The columns `group`, `split` and `pair`; None in every row of one that there is not."""
        place = self.place
        found: dict[str, list[str | None]] = {}
        for key in ("group", "split", "pair"):
            column = self.spec.columns.get(key)
            if column is None:
                found[key] = [None] * len(place.rows)
                continue
            found[key] = checks.names(self.columns[column], column, place)
            if self._is_written:
                checks.check_spellings(found[key], column, place)
            if key == "split":
                checks.check_splits(found[key], column, place)
        if pairs:
            found["pair"] = list(pairs.pair)
            found["group"] = list(pairs.pair) if self.spec.group is None else found["group"]
        return found

    def _turns(
        self,
        spec: TurnSpec,
        rows: Rows,
        label: np.ndarray | None,
        classes: list[str],
        optional: dict[str, list[str | None]],
    ) -> tuple[Rows, np.ndarray | None, list[str], Spans | None, dict[str, list[str | None]]]:
        """Labels of turns: as spans, or with a row for each turn."""
        assert rows.chats is not None and rows.raws is not None
        found = turns.labelled(rows.chats, rows.raws, self.columns, spec, self.place)
        key = spec.named
        if key is not None:
            place = replace(self.place, rows=[self.place.rows[t.row] for t in found])
            own, names = labels.encode([t.label for t in found], self.spec.positive, place)
        if not spec.rows:
            return (
                rows,
                label,
                classes,
                turns.as_spans(found, own.tolist(), names, rows.chats),
                optional,
            )
        parts = parting.of_turns(rows.chats, found)
        if key is not None:
            label, classes = own, names
        else:
            label = self._taken(label, parts.at)
        rows, optional = self._parted(rows, parts, optional)
        return rows, label, classes, None, optional

    def _spans(
        self,
        rows: Rows,
        label: np.ndarray | None,
        classes: list[str],
        optional: dict[str, list[str | None]],
        spans: Spans,
    ) -> tuple[Rows, np.ndarray | None, list[str], dict[str, list[str | None]]]:
        """A row for each span that has a label, or for each where none has any."""
        parts, own = parting.of_spans(rows.chats, spans)
        if not own:
            raise self.place.bad("no span is there (config key `spans`)")
        if spans.unlabelled:
            label = self._taken(label, parts.at)
        else:
            label, classes = np.array(own, np.int32), list(spans.classes)
        rows, optional = self._parted(rows, parts, optional)
        return rows, label, classes, optional

    def _taken(self, label: np.ndarray | None, at: Sequence[int]) -> np.ndarray | None:
        """The labels, or values, of the rows that parts are taken from."""
        if self.values is not None:
            self.values = self.values[list(at)]
        return None if label is None else label[list(at)]

    def _parted(
        self, rows: Rows, parts: parting.Parts, optional: Mapping[str, list[str | None]]
    ) -> tuple[Rows, dict[str, list[str | None]]]:
        """Rows of parts, those of one row a group unless a column says the groups."""
        found = {k: [v[i] for i in parts.at] for k, v in optional.items()}
        if self.spec.group is None:
            found["group"] = [rows.ids[i] for i in parts.at]
        self.columns, self.place = filters.taken(self.columns, parts.at, self.place)
        return parting.parted(rows, parts), found

    def _table(
        self,
        rows: Rows,
        label: np.ndarray | None,
        classes: list[str],
        spans: Spans | None,
        optional: Mapping[str, Sequence[str | None]],
        pairs: contrastive.Pairs | None,
        multiline: int,
    ) -> tuple[pa.Table, dict[str, Any]]:
        made: dict[str, Any] = {
            "id": rows.ids,
            "text": rows.texts,
            "label": pa.nulls(len(rows.ids), pa.int32()) if label is None else label,
            **optional,
            "digest": rows.digests,
        }
        if rows.parts is not None:
            made["part"] = [{"start": low, "end": high} for low, high in rows.parts]
        found = facts.facts(made, label, classes) | self.facts
        found |= {"multiline": multiline, "quoting": self.quoting}
        if self.values is not None:
            made["value"] = self.values
        if pairs:
            found["answers"] = contrastive.counts(pairs.answer, pairs.label)
            made["answer"] = pairs.answer
        if rows.chats is not None:
            made |= facts.chat_columns(rows.chats)
            found["chats"] = facts.of_chats(rows.chats)
        if extra := self.spec.extra:
            made["extra"] = [
                dumps({c: _plain(self.columns[c][i]) for c in extra}) for i in range(len(rows.ids))
            ]
        if spans is not None:
            made["spans"] = [[s._asdict() for s in row] for row in spans.rows]
            found["spans"] = spans.facts()
        whole = table.made(made)
        return whole, found | table.identity(whole, classes)


def _plain(value: Any) -> Any:
    """A cell as JSON holds it."""
    return value if isinstance(value, (str, int, float, bool, list, dict)) else cell_text(value)
