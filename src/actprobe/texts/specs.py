"""An entry of `datasets` as the spec of its artefact: everything that determines the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actprobe.errors import ConfigError
from actprobe.texts import conditions, templates
from actprobe.texts.chats import ROLES
from actprobe.texts.sources import Source

_PAIR_TEMPLATE = "{text}\n\n{answer}"
_SPANS: dict[str, Any] = {
    "in": None, "start": "start", "end": "end", "label": "label", "message": "message",
    "text": "text", "positive": None, "ignore": [], "outside": "negative", "rows": False,
}  # fmt: skip
_NAMED = ("label", "group", "split")


def spec(dataset: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """The spec of a dataset without stage and version.

    Raises ConfigError for keys that contradict each other, for templates, conditions and samples
    that cannot be.
    """
    where = f"dataset {dataset['name']}"
    made: dict[str, Any] = {
        "source": dict(source.content),
        "format": source.format,
        "text": dataset["text"],
        "id": dataset["id"],
        "keep": {c: _wanted(v) for c, v in dataset["keep"].items()},
        **_dialect(dataset, source.format),
        **{k: dataset[k] for k in ("label", "group", "split", "pair")},
        "positive": None if dataset["positive"] is None else str(dataset["positive"]),
    }
    if dataset["label_kind"] is not None:
        made["label_kind"] = _label_kind(dataset, where)
    if dataset["where"]:
        made["where"] = conditions.written(dataset["where"], where)
    if answers := dataset["contrastive"]:
        made |= {"answers": sorted(answers.values()), "positive": answers["positive"]}
        made |= {"label": None, "pair": None}
    if (chat := _chat(dataset, where)) is not None:
        made["chat"] = chat
    elif (template := _template(dataset, where)) is not None:
        made["template"] = template
    made |= _parts(dataset, made, where)
    if dataset["sample"]:
        made["sample"] = _sample(dataset["sample"], made, where)
    if dataset["generate"]:
        made |= _prompts(dataset, where)
    return made


def _label_kind(dataset: Mapping[str, Any], where: str) -> str:
    kind = dataset["label_kind"]
    if kind != "binary" and dataset["positive"] is not None:
        raise ConfigError(
            f"{where}: `positive` makes two classes of the labels, and `label_kind` says {kind}; leave "
            "one of them out"
        )
    return kind


def _template(dataset: Mapping[str, Any], where: str) -> str | None:
    """How a row's text is put together; None: the text column as it is."""
    pairs, template = bool(dataset["contrastive"]), dataset["template"]
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


def _chat(dataset: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """How chats are put together; None for texts."""
    messages, alpaca = dataset["messages"], dataset["alpaca"]
    if messages is not None and alpaca is not None:
        raise ConfigError(f"{where}: `messages` and `alpaca` exclude each other")
    if messages is None and alpaca is None:
        if dataset["roles"] or (dataset["tools"] and not dataset["generate"]):
            key = "roles" if dataset["roles"] else "tools"
            raise ConfigError(f"{where}: `{key}` is for chats; name their column in `messages`")
        if not dataset["generate"]:
            return None
        text = {"role": "user", "template": _template(dataset, where) or "{text}"}
        return {"from": [text], "roles": {}, "tools": dataset["tools"]}
    if dataset["template"] is not None:
        raise ConfigError(
            f"{where}: `template` is for texts; in chats write the text of a message as a template: "
            'messages: [{role: user, content: "{question}"}]'
        )
    if alpaca is not None:
        items: list[dict[str, Any]] = [{"alpaca": dict(alpaca)}]
    else:
        given = [{"column": messages}] if isinstance(messages, str) else messages
        items = [_item(m, where) for m in given]
    if sum("column" in i for i in items) > 1:
        raise ConfigError(f"{where}: messages: two columns of messages; expected one")
    if dataset["contrastive"]:
        own = [f for i in items for _, f in templates.pieces(i.get("template", "")) if f]
        if own.count(templates.ANSWER) != 1:
            raise ConfigError(
                f"{where}: contrastive chats take their answers by {{answer}}; write it once, as in "
                'messages: [{role: user, content: "{question}"}, {role: assistant, content: "{answer}"}]'
            )
    for name, role in dataset["roles"].items():
        if role not in ROLES:
            raise ConfigError(
                f"{where}: roles.{name}: {role!r}; expected one of {', '.join(ROLES)}"
            )
    return {"from": items, "roles": dict(dataset["roles"]), "tools": dataset["tools"]}


def _item(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    if "column" in message:
        return {"column": message["column"]}
    templates.pieces(message["content"], f"{where}: messages")
    return {"role": message["role"], "template": message["content"]}


def _parts(
    dataset: Mapping[str, Any], made: Mapping[str, Any], where: str
) -> dict[str, dict[str, Any]]:
    """Labels of parts: spans and turns."""
    spans, turns = dataset["spans"], dataset["turns"]
    for key in ("spans", "turns"):
        for other in ("contrastive", "generate"):
            if dataset[key] and dataset[other]:
                raise ConfigError(f"{where}: `{key}` and `{other}` exclude each other")
    if spans and turns:
        raise ConfigError(f"{where}: `spans` and `turns` exclude each other")
    if turns and "chat" not in made:
        raise ConfigError(f"{where}: `turns` is for chats; name their column in `messages`")
    found = {}
    if spans:
        given = {"column": spans} if isinstance(spans, str) else dict(spans)
        full = _SPANS | given
        if full["rows"]:  # what lies in no span is in no row
            full["outside"] = "ignore"
        full["ignore"] = sorted(map(str, full["ignore"]))
        if full["positive"] is not None:
            positive = full["positive"]
            full["positive"] = sorted(
                map(str, positive if isinstance(positive, list) else [positive])
            )
        template = made.get("template")
        if template is not None and templates.TEXT not in templates.fields(template):
            raise ConfigError(
                f"{where}: spans are counted in {{text}}, which `template` leaves out"
            )
        found["spans"] = full
    if turns:
        if turns["label"] is not None and turns["labels"] is not None:
            raise ConfigError(f"{where}: turns.label and turns.labels exclude each other")
        if turns["label"] is None and turns["labels"] is None and not turns["rows"]:
            raise ConfigError(f"{where}: turns: give `label` or `labels`, or set `rows: true`")
        found["turns"] = dict(turns)
    return found


def _sample(sample: Mapping[str, Any], made: Mapping[str, Any], where: str) -> dict[str, Any]:
    by = sample["by"]
    column = made[by] if by in _NAMED else by
    if by is not None and column is None:
        raise ConfigError(f"{where}: sample.by: {by}, and the dataset has no `{by}`")
    return {**sample, "column": column}


def _prompts(dataset: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What prompts hold instead of, or besides, the rest."""
    if dataset["contrastive"]:
        raise ConfigError(f"{where}: `contrastive` and `generate` exclude each other")
    label = dataset["generate"]["label"]
    if label is None:
        return {"prompts": True}
    extra = {*label["columns"], *([label["equals"]] if label["equals"] is not None else [])}
    return {"prompts": True, "label": None, "positive": None, "extra": sorted(extra)}


def _dialect(dataset: Mapping[str, Any], format: str) -> dict[str, Any]:
    """The keys that say how a csv or tsv file is written, where the config gives them."""
    given = {k: dataset[k] for k in ("separator", "quotes") if dataset.get(k) is not None}
    kind = format.partition(".")[0]
    for key in given:
        if kind not in (("csv",) if key == "separator" else ("csv", "tsv")):
            raise ConfigError(
                f"dataset {dataset['name']}: `{key}` is for csv files, the format is {kind}; take "
                f"`{key}` out or write `format: csv`"
            )
    return given


def _wanted(values: Any) -> list[str | None]:
    """The cell texts that a `keep` entry accepts (None: an empty one), sorted."""
    given = values if isinstance(values, list) else [values]
    texts = {None if v is None or v == "" else str(v) for v in given}
    return sorted(texts, key=lambda v: (v is not None, v or ""))
