"""The texts of a dataset with `generate`: its prompts as chats that end with the model's answers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actprobe import texts
from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.models import load
from actprobe.models.answers import labels
from actprobe.models.answers.generation import FINISH, LIMIT
from actprobe.models.answers.loading import decoded
from actprobe.models.answers.targets import AnsweredTarget
from actprobe.models.located import located
from actprobe.texts import Texts, facts, table
from actprobe.texts import labels as encoding
from actprobe.texts.chats import Chat
from actprobe.texts.checks import Place

log = logging.getLogger(__name__)


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make the texts of all datasets of a batch."""
    with Outcome(batch, config["on_bad_dataset"], table.write_bad) as out:
        out.make(out.todo(), partial(_make, config=config))


def _make(t: AnsweredTarget, config: Mapping[str, Any]) -> Path:
    prompts = texts.load(t.args.prompts)
    with store.open_h5(t.args.answers) as f:
        tokens = [row[:n].tolist() for row, n in zip(f["tokens"][:], f["n_tokens"][:], strict=True)]
        finish = f["finish"][:]
        stop = store.read_header(t.args.answers)["spec"]["stop"]
    said = _said(t, config["models"][t.args.model], tokens, stop)
    _refuse_unfinished(t, prompts, finish)
    kept = [i for i, text in enumerate(said) if text.strip()]
    if not kept:
        raise BadInput(f"dataset {t.item}: {t.args.model} answers nothing to any prompt")
    if left := len(said) - len(kept):
        log.warning("%s: %d of %d answers are empty, and no rows", t.item, left, len(said))
    content, found = _table(t, prompts, said, finish, kept)
    found["generated"] = {
        "model": t.args.model,
        "prompts": len(said),
        "empty": len(said) - len(kept),
        "tokens": sum(map(len, tokens)),
        **{name: int((finish == k).sum()) for k, name in enumerate(FINISH)},
    }
    log.info("texts %s: %d answers, %d at the limit", t.item, len(kept), (finish == LIMIT).sum())
    return store.write_table(t.path, content, t.record, found | {"provenance": t.args.provenance})


def _said(
    t: AnsweredTarget,
    settings: Mapping[str, Any],
    tokens: Sequence[Sequence[int]],
    stop: Sequence[str],
) -> list[str]:
    """The text of each answer, up to a string that stops it."""
    name = t.args.model
    with located(t.args.place, name) as where:
        load.load_config(where, name, settings)
        decode = partial(decoded, load.load_tokenizer(where, name))
    found = []
    for text in map(decode, tokens):
        ends = [at for s in stop if (at := text.find(s)) >= 0]
        found.append(text[: min(ends)] if ends else text)
    return found


def _refuse_unfinished(t: AnsweredTarget, prompts: Texts, finish: np.ndarray) -> None:
    cut = np.flatnonzero(finish == LIMIT)
    if len(cut) and t.spec.unfinished == "refuse":
        raise BadInput(
            f"dataset {t.item}: the answer to row {prompts.id[cut[0]]!r} reaches max_new_tokens "
            f"({len(cut)} such rows); raise generate.max_new_tokens, or keep them by "
            "`unfinished: keep`"
        )


def _table(
    t: AnsweredTarget, prompts: Texts, said: Sequence[str], finish: np.ndarray, kept: Sequence[int]
) -> tuple[pa.Table, dict[str, Any]]:
    """The table, and the facts about it."""
    assert prompts.chats is not None
    chats = []
    for i in kept:
        asked = prompts.chats[i]
        answer = {"role": "assistant", "content": said[i]}
        chats.append(Chat([*asked.messages, answer], asked.tools))
    label, classes = _labels(t, prompts, said, kept)
    made: dict[str, Any] = {
        "id": prompts.id[list(kept)],
        "text": [c.text for c in chats],
        "label": pa.nulls(len(kept), pa.int32()) if label is None else label,
        **{k: _taken(getattr(prompts, k), kept) for k in ("group", "split", "pair")},
        "digest": [c.digest for c in chats],
        "finish": [FINISH[finish[i]] for i in kept],
        **facts.chat_columns(chats),
    }
    known = None if label is None else label.to_numpy(zero_copy_only=False)
    if known is not None:
        known = np.where(np.isnan(known.astype(float)), table.UNLABELLED, known).astype(np.int32)
    found = facts.facts(made, known, classes)
    found |= {
        "multiline": facts.lines(made["text"]),
        "quoting": None,
        "chats": facts.of_chats(chats),
    }
    whole = table.made(made)
    return whole, found | table.identity(whole, classes)


def _taken(values: np.ndarray | None, kept: Sequence[int]) -> list[str | None]:
    return [None if values is None else values[i] for i in kept]


def _labels(
    t: AnsweredTarget, prompts: Texts, said: Sequence[str], kept: Sequence[int]
) -> tuple[pa.Array | None, list[str]]:
    """The label of each row as it stands in the table, null where there is none, and the classes."""
    spec = t.spec.label
    if spec is None:
        if prompts.label is None:
            return None, []
        own = prompts.label[list(kept)]
        return pa.array(own, pa.int32(), mask=own < 0), list(prompts.classes)
    where = f"dataset {t.item}: generate.label"
    assert prompts.chats is not None
    rows = [
        {
            **({} if prompts.extra is None else prompts.extra[i]),
            "id": prompts.id[i],
            "messages": prompts.chats[i].messages,
            "answer": said[i],
        }
        for i in kept
    ]
    values = labels.read(spec, rows, t.args.function, where)
    some = [k for k, v in enumerate(values) if v is not None]
    if not some:
        raise BadInput(f"{where}: no answer has a label, such as {said[kept[0]][:80]!r}")
    place = Place(t.item, f"answers of {t.args.model}", rows=[kept[k] for k in some])
    codes, classes = encoding.encode([values[k] for k in some], t.spec.positive, place)
    full = np.full(len(values), table.UNLABELLED, np.int32)
    full[some] = codes
    if missing := len(values) - len(some):
        log.warning("%s: %d of %d answers have no label", t.item, missing, len(values))
    counts = Counter(codes.tolist())
    log.info("%s: %s", t.item, {c: counts[k] for k, c in enumerate(classes)})
    return pa.array(full, pa.int32(), mask=full < 0), classes
