"""How a model reads texts and chats: everything between a dataset's rows and token ids, without
weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from actprobe.base.errors import ActprobeError, BadInput, bad_file
from actprobe.models import bos, families, limits, offsets
from actprobe.models.chat import Render, Template, template
from actprobe.models.conversations import Conversations
from actprobe.models.rows import Rows, cut, flat, joined, nobody, on_texts
from actprobe.models.segments import ROLE, Rendered
from actprobe.models.special import Special, plain_in_chat
from actprobe.models.tokens import Tokens
from actprobe.texts.chats import Chat
from actprobe.texts.checks import Malformed

_CHUNK = 1000  # rows tokenised at once
_NAMED = 5  # rows that a message names
_TOKENIZER = "the model's tokenizer cannot read this text (take the row out of the dataset): "
# Of `chat`, for chats read by a model whose entry has none.
PLAIN_CHAT: Mapping[str, Any] = {
    "system": None, "fold_system": False, "add_generation_prompt": True, "variables": {},
}  # fmt: skip


@dataclass(frozen=True)
class _Way:
    """How the rows of a dataset become strings.

    render: from a row to its string and where its text stands in it; None for bare texts. bos:
    whether rows begin with one that the text does not bring.
    """

    render: Callable[[Any], Rendered] | None
    bos: bool


@dataclass(frozen=True)
class Reading:
    """A tokenizer with all that does not change from row to row.

    settings: the model's entry in the config; most: tokens per row, None without a limit;
    n_embeddings: token ids that the model knows, None when not said; bos: whether bare texts begin
    with one that they do not bring; causal: whether the model is; render: of the chat template, for
    texts.
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

    @property
    def has_offsets(self) -> bool:
        """Whether the tokenizer tells which characters tokens cover."""
        return _has_offsets(self.tokenizer)

    @cached_property
    def conversations(self) -> Conversations:
        """The chat template for rows that are chats. Raises ConfigError where there is none."""
        _require_offsets(self.tokenizer)
        chat = {**PLAIN_CHAT, **(self.settings["chat"] or {})}
        return Conversations(Template(self.tokenizer, chat, self.name), chat)

    def prepends_bos(self, chats: bool) -> bool:
        """Whether rows, chats or texts, begin with a BOS that they do not bring."""
        return self.settings["prepend_bos"] is True if chats else self.bos

    def encode(
        self,
        given: Sequence[str | Chat],
        names: Sequence[str],
        with_chars: bool = False,
        prompt: bool | None = None,
    ) -> Tokens:
        """Tokenise a dataset, of texts or of chats.

        names: row ids, for messages; with_chars: keep character offsets (for spans); prompt: whether
        chats end with what begins the assistant's answer, None as the settings say. Raises BadInput
        naming the row for one that the template or the tokenizer cannot take, one without tokens, with
        a doubled BOS or with a token that the model does not know, and for one of which nothing is left
        after it was cut; ActprobeError for a tokenizer that gives no offsets where they are needed.
        """
        if with_chars:
            _require_offsets(self.tokenizer)
        way = self._way(given, names, prompt)
        templated = way.render is not None
        made = []
        n_truncated = n_special = 0
        for i in range(0, len(given), _CHUNK):
            some, ids = given[i : i + _CHUNK], names[i : i + _CHUNK]
            rows, found = self._rows(way, some, ids, with_chars or templated)
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
            rows.said if templated else None,
            _roles(given, rows) if templated else None,
        )

    def _way(self, given: Sequence[str | Chat], names: Sequence[str], prompt: bool | None) -> _Way:
        chats = isinstance(given[0], Chat)
        if not chats:
            return _Way(self.render, self.bos)
        found = self.conversations
        self._check_tools(found, given, names)
        return _Way(partial(found.render, prompt=prompt), self.prepends_bos(chats))

    def _check_tools(
        self, found: Conversations, given: Sequence[Any], names: Sequence[str]
    ) -> None:
        """Raise BadInput for a template that shows no tools, where a chat offers some."""
        offering = [i for i, chat in enumerate(given) if chat.tools]
        try:
            shown = not offering or found.shows_tools(given[offering[0]])
        except Malformed:
            return  # said of the row
        if not shown:
            raise BadInput(
                f"row {names[offering[0]]!r} offers tools ({len(offering)} such rows), and the model's "
                "chat template does not show any; leave `tools` out, or take a model that was trained "
                "with tools"
            )

    def _rows(
        self, way: _Way, given: Sequence[str | Chat], names: Sequence[str], with_offsets: bool
    ) -> tuple[Rows, int]:
        """The rows before they are cut, and how many of them spell out special tokens."""
        rendered = self._rendered(way, given, names)
        rows = self._tokenised(way, rendered, names, with_offsets)
        held = self._held(way, rows)
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
                rows = rows.replaced(i, self._plain(way, rendered[i], names[i]))
            texts = (g.text if isinstance(g, Chat) else g for g in given)
            n = sum(map(self.special.spelled_in, texts))
        return self._with_bos(way, rows), n

    def _rendered(
        self, way: _Way, given: Sequence[str | Chat], names: Sequence[str]
    ) -> list[Rendered]:
        if way.render is None:
            return [(text, []) for text in given if isinstance(text, str)]
        why = (
            "the chat template cannot show this text (take the row out, or give what the template "
            f"asks for in models.{self.name}.chat.variables): "
        )
        found, refused = [], {}
        for row, name in zip(given, names, strict=True):
            try:
                found.append(blamed(partial(way.render, row), f"row {name!r}", why))
            except Malformed as e:
                refused[name] = str(e)
        if refused:
            first, problem = next(iter(refused.items()))
            others = [repr(n) for n in refused if n != first]
            more = [f"{len(others) - _NAMED} more"] if len(others) > _NAMED else []
            told = (
                f"; nor can rows {', '.join([*others[:_NAMED], *more])} be read" if others else ""
            )
            raise BadInput(f"row {first!r}: {problem}{told}")
        return found

    def _tokenised(
        self, way: _Way, rendered: Sequence[Rendered], names: Sequence[str], with_offsets: bool
    ) -> Rows:
        chat = way.render is not None
        options = {
            "add_special_tokens": self.settings["add_special_tokens"] and not chat,
            "truncation": False,
            "padding": False,
            "split_special_tokens": self.settings["special_tokens_in_text"] == "plain" and not chat,
            "return_special_tokens_mask": True,
            "return_offsets_mapping": with_offsets,
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
        if not chat:
            return rows
        offsets.check(self.tokenizer, rows, rendered, names)
        return on_texts(rows, rendered)

    def _held(self, way: _Way, rows: Rows) -> np.ndarray:
        """Special tokens of the text itself besides a BOS in front, bool [T]."""
        held = rows.own & self.special.among(rows.ids)
        if way.render is None:
            held[rows.starts[rows.firsts(self.tokenizer.bos_token_id)]] = False
        return held

    def _plain(self, way: _Way, rendered: Rendered, name: str) -> Rows:
        """One row of a conversation, its text's special tokens read as characters."""
        string, segments = rendered
        found = None
        if way.render is not None:
            work = partial(plain_in_chat, self.tokenizer, self.special, string, segments)
            found = blamed(work, f"row {name!r}", _TOKENIZER)
        if found is None:
            raise BadInput(
                f"row {name!r}: special_tokens_in_text: plain: this tokenizer takes a special token "
                "of the text for one whatever it is told; take it out of the text, or set keep"
            )
        ids, chars = np.array(found[0], np.int32), found[1].astype(np.int32)
        n = len(ids)
        own, types = np.ones(n, bool), np.zeros(n, np.int8)
        return on_texts(Rows(ids, np.array([n]), own, chars, types, nobody(n)), [rendered])

    def _with_bos(self, way: _Way, rows: Rows) -> Rows:
        """Rows with the BOS that the settings ask for, or without the tokenizer's."""
        token = self.tokenizer.bos_token_id
        there = rows.firsts(token)
        if way.bos:
            return rows.fronted(~there, token) if not there.all() else rows
        keep = np.ones(len(rows.ids), bool)
        keep[rows.starts[there]] = rows.own[rows.starts[there]] | (way.render is not None)
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
    except (ActprobeError, MemoryError, Malformed):
        raise
    except Exception as e:
        raise bad_file(what, e, f"{why}{type(e).__name__}: ") from e
    except BaseException as e:
        if type(e).__name__ != "PanicException":  # a panic of a library in Rust
            raise
        raise BadInput(f"{what}: {why}{e}") from None


def _has_offsets(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "is_fast", False))


def _roles(given: Sequence[str | Chat], rows: Rows) -> list[bytes]:
    """The number of the role of each message, row by row; 0 for one that is nobody's in a text."""
    if isinstance(given[0], Chat):
        return [bytes(ROLE[m["role"]] for m in g.messages) for g in given if isinstance(g, Chat)]
    found = []
    for low, n in zip(rows.starts.tolist(), rows.lengths.tolist(), strict=True):
        role, turn, _ = rows.said[low : low + n].T
        found.append(bytes(int(role[turn == k].max(initial=0)) for k in range(turn.max() + 1)))
    return found


def _require_offsets(tokenizer: Any) -> None:
    if not _has_offsets(tokenizer):
        raise ActprobeError(
            f"{type(tokenizer).__name__} gives no character offsets, which chat templates and "
            "spans need; use a model with a tokenizer.json"
        )
