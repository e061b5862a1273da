"""An entry of `datasets` as the spec of its artefact: everything that determines the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.texts import conditions, templates
from actprobe.texts.chats import ROLES
from actprobe.texts.records import (
    NAMED,
    Alpaca,
    ChatSpec,
    Message,
    Messages,
    SampleSpec,
    SpanSpec,
    TextSpec,
    TurnSpec,
)
from actprobe.texts.sources import Source

_PAIR_TEMPLATE = "{text}\n\n{answer}"


def spec(dataset: Mapping[str, Any], source: Source) -> TextSpec:
    """The spec of a dataset.

    Raises ConfigError for keys that contradict each other, for templates, conditions and samples
    that cannot be.
    """
    where = f"dataset {dataset['name']}"
    _check_dialect(dataset, source.format, where)
    columns: dict[str, str | None] = {k: dataset[k] for k in NAMED}
    positive = dataset["positive"]
    answers: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    if pairs := dataset["contrastive"]:
        answers, positive = tuple(sorted(pairs.values())), pairs["positive"]
        columns |= {"label": None, "pair": None}
    sample = _sample(dataset["sample"], columns, where)
    if how := dataset["generate"]:
        if pairs:
            raise ConfigError(f"{where}: `contrastive` and `generate` exclude each other")
        if how["label"] is not None:
            columns["label"] = positive = None
            extra = tuple(sorted({*how["label"]["columns"], how["label"]["equals"]} - {None}))
    chat = _chat(dataset, where)
    template = None if chat is not None else _template(dataset, where)
    _check_parts(dataset, chat, where)
    return TextSpec(
        source=source.content,
        format=source.format,
        text=dataset["text"],
        **columns,
        positive=None if positive is None else str(positive),
        label_kind=_label_kind(dataset, where),
        keep={c: _wanted(v) for c, v in dataset["keep"].items()},
        where=conditions.written(dataset["where"], where),
        separator=dataset["separator"],
        quotes=dataset["quotes"],
        answers=answers,
        template=template,
        chat=chat,
        sample=sample,
        spans=_spans(dataset["spans"], template, where),
        turns=TurnSpec(**dataset["turns"]) if dataset["turns"] else None,
        prompts=bool(how),
        extra=extra,
    )


def _label_kind(dataset: Mapping[str, Any], where: str) -> str | None:
    kind: str | None = dataset["label_kind"]
    if kind not in (None, "binary") and dataset["positive"] is not None:
        raise ConfigError(
            f"{where}: `positive` makes two classes of the labels, and `label_kind` says {kind}; leave "
            "one of them out"
        )
    return kind


def _template(dataset: Mapping[str, Any], where: str) -> str | None:
    """How a row's text is put together; None: the text column as it is."""
    pairs = bool(dataset["contrastive"])
    template: str | None = dataset["template"]
    if template is None:
        return _PAIR_TEMPLATE if pairs else None
    found = [f for _, f in templates.pieces(template, f"{where}: template") if f]
    answers = found.count(templates.ANSWER)
    if pairs and answers != 1:
        raise ConfigError(f"{where}: template {template!r}; expected {{answer}} once in it")
    if not found:
        raise ConfigError(
            f"{where}: template {template!r}; expected {{text}} or other columns in it"
        )
    return template


def _chat(dataset: Mapping[str, Any], where: str) -> ChatSpec | None:
    """How chats are put together; None for texts."""
    messages, alpaca, roles = dataset["messages"], dataset["alpaca"], dataset["roles"]
    if messages is not None and alpaca is not None:
        raise ConfigError(f"{where}: `messages` and `alpaca` exclude each other")
    if messages is None and alpaca is None:
        if roles or (dataset["tools"] and not dataset["generate"]):
            key = "roles" if roles else "tools"
            raise ConfigError(f"{where}: `{key}` is for chats; name their column in `messages`")
        if not dataset["generate"]:
            return None
        text = Message(role="user", template=_template(dataset, where) or "{text}")
        return ChatSpec(items=(text,), tools=dataset["tools"])
    if dataset["template"] is not None:
        raise ConfigError(
            f"{where}: `template` is for texts; in chats write the text of a message as a template: "
            'messages: [{role: user, content: "{question}"}]'
        )
    items: tuple[Messages | Message | Alpaca, ...]
    if alpaca is not None:
        items = (Alpaca(**alpaca),)
    elif isinstance(messages, str):
        items = (Messages(column=messages),)
    else:
        items = tuple(_item(m, where) for m in messages)
    if sum(isinstance(i, Messages) for i in items) > 1:
        raise ConfigError(f"{where}: messages: two columns of messages; expected one")
    if dataset["contrastive"]:
        patterns = [i.template for i in items if isinstance(i, Message)]
        own = [f for p in patterns for _, f in templates.pieces(p)]
        if own.count(templates.ANSWER) != 1:
            raise ConfigError(
                f"{where}: contrastive chats take their answers by {{answer}}; write it once, as in "
                'messages: [{role: user, content: "{question}"}, {role: assistant, content: "{answer}"}]'
            )
    for name, role in roles.items():
        if role not in ROLES:
            raise ConfigError(
                f"{where}: roles.{name}: {role!r}; expected one of {', '.join(ROLES)}"
            )
    return ChatSpec(items=items, roles=dict(roles), tools=dataset["tools"])


def _item(message: Mapping[str, Any], where: str) -> Messages | Message:
    if "column" in message:
        return Messages(column=message["column"])
    templates.pieces(message["content"], f"{where}: messages")
    return Message(role=message["role"], template=message["content"])


def _check_parts(dataset: Mapping[str, Any], chat: ChatSpec | None, where: str) -> None:
    """Refuse labels of parts where there are none to be had."""
    turns = dataset["turns"]
    for key in ("spans", "turns"):
        for other in ("contrastive", "generate"):
            if dataset[key] and dataset[other]:
                raise ConfigError(f"{where}: `{key}` and `{other}` exclude each other")
    if not turns:
        return
    if dataset["spans"]:
        raise ConfigError(f"{where}: `spans` and `turns` exclude each other")
    if chat is None:
        raise ConfigError(f"{where}: `turns` is for chats; name their column in `messages`")
    if turns["label"] is not None and turns["labels"] is not None:
        raise ConfigError(f"{where}: turns.label and turns.labels exclude each other")
    if turns["label"] is None and turns["labels"] is None and not turns["rows"]:
        raise ConfigError(f"{where}: turns: give `label` or `labels`, or set `rows: true`")


def _spans(given: Any, template: str | None, where: str) -> SpanSpec | None:
    if not given:
        return None
    if template is not None and templates.TEXT not in templates.fields(template):
        raise ConfigError(f"{where}: spans are counted in {{text}}, which `template` leaves out")
    if isinstance(given, str):
        return SpanSpec(column=given)
    plain = {k: given[k] for k in ("column", "start", "end", "label", "message", "text", "rows")}
    positive = given["positive"]
    return SpanSpec(
        **plain,
        # What lies in no span is in no row.
        outside="ignore" if given["rows"] else given["outside"],
        counted=given["in"],
        positive=None if positive is None else _words(positive),
        ignore=_words(given["ignore"]),
    )


def _words(given: Any) -> tuple[str, ...]:
    """One label or several as text, sorted."""
    return tuple(sorted(map(str, given if isinstance(given, list) else [given])))


def _sample(
    sample: Mapping[str, Any] | None, columns: Mapping[str, str | None], where: str
) -> SampleSpec | None:
    if not sample:
        return None
    by = sample["by"]
    column = columns[by] if by in ("label", "group", "split") else by
    if by is not None and column is None:
        raise ConfigError(f"{where}: sample.by: {by}, and the dataset has no `{by}`")
    return SampleSpec(**sample, column=column)


def _check_dialect(dataset: Mapping[str, Any], format: str, where: str) -> None:
    """Refuse what says how a csv or tsv file is written for files of other formats."""
    kind = format.partition(".")[0]
    for key, kinds in (("separator", ("csv",)), ("quotes", ("csv", "tsv"))):
        if dataset[key] is not None and kind not in kinds:
            raise ConfigError(
                f"{where}: `{key}` is for csv files, the format is {kind}; take `{key}` out or write "
                "`format: csv`"
            )


def _wanted(values: Any) -> tuple[str | None, ...]:
    """The cell texts that a `keep` entry accepts (None: an empty one), sorted."""
    given = values if isinstance(values, list) else [values]
    texts = {None if v is None or v == "" else str(v) for v in given}
    return tuple(sorted(texts, key=lambda v: (v is not None, v or "")))
