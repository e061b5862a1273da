"""How a model reads texts: everything between a dataset's rows and token ids, without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from actprobe.errors import ActprobeError, BadInput, bad_file
from actprobe.models import bos, families, limits
from actprobe.models.chat import Render, Segment, template
from actprobe.models.rows import Rows, cut, flat, joined, on_texts
from actprobe.models.special import Special, plain_in_chat
from actprobe.models.tokens import Tokens

_CHUNK = 1000  # texts tokenised at once
_TOKENIZER = "the model's tokenizer cannot read this text (take the row out of the dataset): "
Rendered = tuple[str, list[Segment]]


@dataclass(frozen=True)
class Reading:
    """A tokenizer with all that does not change from row to row.

    settings: the model's entry in the config; most: tokens per row, None without a limit;
    n_embeddings: token ids that the model knows, None when not said; bos: whether rows begin with
    one that the text does not bring; causal: whether the model is; render: of the chat template.
    """

    name: str
    tokenizer: Any
    settings: Mapping[str, Any]
    most: int | None
    n_embeddings: int | None
    bos: bool
    causal: bool
    special: Special
    render: Render | None

    @property
    def leaves_first_out(self) -> bool:
        """Whether mean, max and tokens leave the first position out."""
        return self.causal and bool(self.settings["exclude_first"])

    def encode(
        self, texts: Sequence[str], names: Sequence[str], with_chars: bool = False
    ) -> Tokens:
        """Tokenise a dataset.

        names: row ids, for messages; with_chars: keep character offsets (for spans). Raises
        BadInput naming the row for a text that the template or the tokenizer cannot take, one
        without tokens, with a doubled BOS or with a token that the model does not know, and for one
        of which nothing is left after it was cut; ActprobeError for a tokenizer that gives no
        offsets where they are needed.
        """
        if with_chars:
            _require_offsets(self.tokenizer)
        offsets = with_chars or self.render is not None
        made = []
        n_truncated = n_special = 0
        for i in range(0, len(texts), _CHUNK):
            some, ids = texts[i : i + _CHUNK], names[i : i + _CHUNK]
            rows, found = self._rows(some, ids, offsets)
            rows, shortened = self._cut(rows, ids)
            made.append(rows if with_chars else replace(rows, chars=rows.chars[:0]))
            n_special += found
            n_truncated += int(shortened.sum())
        rows = joined(made)
        self._check(rows, names)
        return Tokens(
            rows.ids,
            np.concatenate([[0], np.cumsum(rows.lengths)]).astype(np.int64),
            rows.own & ~self.special.among(rows.ids),
            rows.chars if with_chars else None,
            n_truncated,
            n_special,
            int(rows.firsts(self.tokenizer.bos_token_id).sum()),
            rows.types if rows.types.any() else None,
        )

    def _rows(self, texts: Sequence[str], names: Sequence[str], offsets: bool) -> tuple[Rows, int]:
        """The rows before they are cut, and how many of them spell out special tokens."""
        rendered = [self._rendered(t, n) for t, n in zip(texts, names, strict=True)]
        rows = self._tokenised(rendered, names, offsets)
        held = self._held(rows)
        n, mode = int(rows.having(held).sum()), self.settings["special_tokens_in_text"]
        if mode == "refuse" and n:
            row, token = int(rows.having(held).argmax()), rows.ids[held][0]
            raise BadInput(
                f"row {names[row]!r} holds the special token {self.tokenizer.decode([token])!r}; "
                f"models.{self.name}.special_tokens_in_text: plain reads its characters, keep the "
                "token"
            )
        if mode == "plain":
            for i in np.flatnonzero(rows.having(held)).tolist():
                rows = rows.replaced(i, self._plain(rendered[i], names[i]))
            n = sum(map(self.special.spelled_in, texts))
        return self._with_bos(rows), n

    def _rendered(self, text: str, name: str) -> Rendered:
        if self.render is None:
            return text, [(0, len(text), 0)]
        why = (
            "the chat template cannot show this text (take the row out, or give what the template "
            f"asks for in models.{self.name}.chat.variables): "
        )
        return blamed(partial(self.render, text), f"row {name!r}", why)

    def _tokenised(self, rendered: Sequence[Rendered], names: Sequence[str], offsets: bool) -> Rows:
        chat = self.render is not None
        options = {
            "add_special_tokens": self.settings["add_special_tokens"] and not chat,
            "truncation": False,
            "padding": False,
            "split_special_tokens": self.settings["special_tokens_in_text"] == "plain" and not chat,
            "return_special_tokens_mask": True,
            "return_offsets_mapping": offsets,
            "return_attention_mask": False,
            "return_token_type_ids": "token_type_ids" in self.tokenizer.model_input_names,
            "verbose": False,
        }
        strings = [string for string, _ in rendered]
        try:
            batch = blamed(lambda: self.tokenizer(strings, **options), "texts", _TOKENIZER)
        except BadInput:
            for name, string in zip(names, strings, strict=True):
                blamed(partial(self.tokenizer, [string], **options), f"row {name!r}", _TOKENIZER)
            raise  # none of them alone
        rows = flat(batch)
        return on_texts(rows, rendered) if chat else rows

    def _held(self, rows: Rows) -> np.ndarray:
        """Special tokens of the text itself besides a BOS in front, bool [T]."""
        held = rows.own & self.special.among(rows.ids)
        if self.render is None:
            held[rows.starts[rows.firsts(self.tokenizer.bos_token_id)]] = False
        return held

    def _plain(self, rendered: Rendered, name: str) -> Rows:
        """One row of a conversation, its text's special tokens read as characters."""
        string, segments = rendered
        found = None
        if self.render is not None:
            work = partial(plain_in_chat, self.tokenizer, self.special, string, segments)
            found = blamed(work, f"row {name!r}", _TOKENIZER)
        if found is None:
            raise BadInput(
                f"row {name!r}: special_tokens_in_text: plain: this tokenizer takes a special token "
                "of the text for one whatever it is told; take it out of the text, or set keep"
            )
        ids, chars = np.array(found[0], np.int32), found[1].astype(np.int32)
        n = len(ids)
        rows = Rows(ids, np.array([n]), np.ones(n, bool), chars, np.zeros(n, np.int8))
        return on_texts(rows, [rendered])

    def _with_bos(self, rows: Rows) -> Rows:
        """Rows with the BOS that the settings ask for, or without the tokenizer's."""
        token = self.tokenizer.bos_token_id
        there = rows.firsts(token)
        if self.bos:
            return rows.fronted(~there, token) if not there.all() else rows
        keep = np.ones(len(rows.ids), bool)
        keep[rows.starts[there]] = rows.own[rows.starts[there]] | (self.render is not None)
        return rows.keeping(keep) if not keep.all() else rows

    def _cut(self, rows: Rows, names: Sequence[str]) -> tuple[Rows, np.ndarray]:
        if self.most is None:
            return rows, np.zeros(len(rows.lengths), bool)
        rows, shortened = cut(
            rows,
            self.most,
            self.settings["truncation_side"],
            rows.firsts(self.tokenizer.bos_token_id),
        )
        long = rows.lengths > self.most
        if long.any():
            i = int(long.argmax())
            fixed = int((~rows.own[rows.starts[i] : rows.starts[i] + rows.lengths[i]]).sum())
            raise BadInput(
                f"row {names[i]!r} has {fixed} tokens of its template or tokenizer, and "
                f"max_length {self.most} leaves no room for the text; raise "
                f"models.{self.name}.max_length"
            )
        return rows, shortened

    def _check(self, rows: Rows, names: Sequence[str]) -> None:
        empty = np.flatnonzero(rows.lengths == 0)
        if len(empty):
            raise BadInput(
                f"row {names[empty[0]]!r} has no tokens ({len(empty)} such rows); take empty texts out "
                "of the dataset"
            )
        self._check_ids(rows, names)
        starts = rows.starts[rows.lengths > 1]
        for first in {self.tokenizer.bos_token_id, self.tokenizer.cls_token_id} - {None}:
            twice = (rows.ids[starts] == first) & (rows.ids[starts + 1] == first)
            if twice.any():
                row = np.flatnonzero(rows.lengths > 1)[twice.argmax()]
                is_bos = first == self.tokenizer.bos_token_id
                key = "prepend_bos" if is_bos else "add_special_tokens"
                raise BadInput(
                    f"row {names[row]!r} begins with {self.tokenizer.decode([first])!r} twice "
                    f"({int(twice.sum())} such rows): the text brings its own; set "
                    f"models.{self.name}.{key}: false or take it out of the text"
                )

    def _check_ids(self, rows: Rows, names: Sequence[str]) -> None:
        if self.n_embeddings is None or not len(rows.ids) or rows.ids.max() < self.n_embeddings:
            return
        at = int((rows.ids >= self.n_embeddings).argmax())
        row, token = int(np.searchsorted(rows.starts, at, "right")) - 1, int(rows.ids[at])
        remedy = "take the token out of the text"
        if self.special.among(rows.ids[at]):
            remedy += f", or set models.{self.name}.special_tokens_in_text: plain"
        raise BadInput(
            f"row {names[row]!r} has token {token} ({self.tokenizer.decode([token])!r}), and the "
            f"model has embeddings for {self.n_embeddings} only: this tokenizer is not the model's, "
            f"or tokens were added to it; {remedy}"
        )


def reading(tokenizer: Any, config: Any, name: str, model: Mapping[str, Any]) -> Reading:
    """How a model of these settings reads texts.

    config: of transformers; model: its entry in our config. Raises ConfigError or ActprobeError for
    settings that the tokenizer, its chat template or the model's positions cannot serve.
    """
    if model["chat"]:
        _require_offsets(tokenizer)
    limit = limits.position_limit(config, name, model["max_length"])
    return Reading(
        name,
        tokenizer,
        model,
        limits.max_tokens(tokenizer, limit, model["max_length"]),
        limits.n_embeddings(config),
        bos.prepends_bos(tokenizer, families.model_type(config.to_dict()), model, name),
        bos.is_causal(config),
        Special(tokenizer),
        template(tokenizer, model["chat"], name) if model["chat"] else None,
    )


def blamed(work: Callable[[], Any], what: str, why: str) -> Any:
    """The result of `work`; whatever a library raises in it becomes `what`'s BadInput."""
    try:
        return work()
    except (ActprobeError, MemoryError):
        raise
    except Exception as e:
        raise bad_file(what, e, f"{why}{type(e).__name__}: ") from e
    except BaseException as e:
        if type(e).__name__ != "PanicException":  # a panic of a library in Rust
            raise
        raise BadInput(f"{what}: {why}{e}") from None


def _require_offsets(tokenizer: Any) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise ActprobeError(
            f"{type(tokenizer).__name__} gives no character offsets, which chat templates and "
            "spans need; use a model with a tokenizer.json"
        )
