"""Datasets with `generate` to targets: the answers to their prompts, and their texts."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actprobe import texts
from actprobe.base.errors import ConfigError, Damaged
from actprobe.base.keys import DigestMemo
from actprobe.cache import plan, store
from actprobe.cache.plan import Record, Target
from actprobe.config import nearest
from actprobe.models.answers import labels
from actprobe.models.answers.records import (
    AnswerArgs,
    AnswerSpec,
    AnswerTarget,
    Asks,
    Runs,
    Sampling,
)
from actprobe.models.sources import Source, locate
from actprobe.models.templates import check_chat
from actprobe.texts import TextArgs, TextTarget

STAGE, LOADER = "answers", "answers"
VERSION = 2
ROWS_VERSION = 1  # of the texts that are made of answers
_CHAT = ("system", "fold_system", "variables")
_READS = ("prepend_bos", "special_tokens_in_text")
_RUNS = ("dtype", "attn_implementation", "max_tokens_per_batch")
_SAMPLING = ("temperature", "top_k", "top_p", "seed")


@dataclass(frozen=True, kw_only=True)
class AnsweredSpec(Record):
    """What decides the texts that are made of answers: keys of the prompts and the answers, what
    becomes of unfinished ones, and where labels come from."""

    of: str = "answers"
    rows: int
    prompts: str
    answers: str
    unfinished: str
    label: Mapping[str, Any] | None
    positive: str | None


@dataclass(frozen=True, kw_only=True)
class AnsweredArgs(TextArgs):
    """What is known of the texts; paths of the prompts and the answers; the model and its place, for
    the tokenizer; function: the user's file that labels answers."""

    prompts: str
    answers: str
    model: str
    place: Mapping[str, Any]
    function: str | None


AnsweredTarget = Target[AnsweredSpec, AnsweredArgs]


def targets(
    config: Mapping[str, Any], known: Mapping[str, list[Target]], memo: DigestMemo
) -> list[Target]:
    """Answers and texts of each dataset with `generate`.

    The answers are keyed by what determines them: the prompts, the model, and how it generates. So are
    the activations of the texts (`rows` of their args), before and after the answers are there; labels
    are in the key of the texts alone. Raises ConfigError for an unknown model, for one without a chat
    template, and for labels that cannot be.
    """
    prompts = {t.item: t for t in known.get("prompts", [])}
    wheels = {t.item: t for t in known.get("wheels", [])}
    sources: dict[str, Source] = {}
    found = []
    for dataset in texts.datasets(config):
        how = dataset["generate"]
        if not how:
            continue
        where, model = f"dataset {dataset['name']}: generate", how["model"]
        if model not in config["models"]:
            hint = nearest(model, config["models"])
            raise ConfigError(f"{where}.model: unknown model {model!r}; {hint}")
        if config["models"][model]["weights"] == "random":
            raise ConfigError(
                f"{where}.model: {model} has random weights, which answer nothing; name another model"
            )
        if model not in sources:
            sources[model] = locate(config, model, wheels, memo)
        source = sources[model]
        asks = f"dataset {dataset['name']} asks {model} for answers"
        check_chat(model, config["models"][model], source.place, asks)
        answers = _answers(config, how, source, prompts[dataset["name"]])
        found += [answers, _rows(config, dataset, answers, prompts[dataset["name"]], memo, where)]
    return found


def _answers(
    config: Mapping[str, Any], how: Mapping[str, Any], source: Source, prompts: TextTarget
) -> AnswerTarget:
    name = how["model"]
    model = config["models"][name]
    chat = model["chat"] or {}
    spec = AnswerSpec(
        prompts=prompts.args.rows,
        model=dict(source.identity),
        reads=Asks(**{k: model[k] for k in _READS}, **{k: chat[k] for k in _CHAT if k in chat}),
        runs=Runs(**{k: model[k] for k in _RUNS}),
        max_new_tokens=how["max_new_tokens"],
        min_new_tokens=how["min_new_tokens"],
        stop=tuple(how["stop"]),
        sampling=Sampling(**{k: how[k] for k in _SAMPLING}) if how["temperature"] else None,
    )
    args = AnswerArgs(model=name, prompts=prompts.path, place=source.place_of("embed"))
    return plan.target(
        config["cache_dir"],
        STAGE,
        VERSION,
        f"{name}/{prompts.item}",
        spec,
        loader=name,
        item=prompts.item,
        inputs=(prompts, *source.inputs),
        args=args,
        cost=float(prompts.args.bytes),
        movable=True,
    )


def _rows(
    config: Mapping[str, Any],
    dataset: Mapping[str, Any],
    answers: AnswerTarget,
    prompts: TextTarget,
    memo: DigestMemo,
    where: str,
) -> AnsweredTarget:
    how = dataset["generate"]
    spec, function = labels.spec(how["label"], memo, f"{where}.label")
    params = AnsweredSpec(
        rows=ROWS_VERSION,
        prompts=prompts.identity,
        answers=answers.key,
        unfinished=how["unfinished"],
        label=spec,
        positive=str(dataset["positive"]) if spec and dataset["positive"] is not None else None,
    )
    args = AnsweredArgs(
        rows=answers.key,
        prompts=prompts.path,
        answers=answers.path,
        model=how["model"],
        place=answers.args.place,
        function=function,
        file=prompts.args.file,
        bytes=prompts.args.bytes,
        columns=prompts.args.columns,
        bad=prompts.args.bad,
        provenance={**prompts.args.provenance, "answers": how["model"]},
    )
    t = plan.target(
        config["cache_dir"],
        "texts",
        texts.VERSION,
        dataset["name"],
        params,
        loader=LOADER,
        item=dataset["name"],
        inputs=(prompts, answers),
        args=args,
        ext="parquet",
        movable=True,
    )
    facts, bad = _known(t)
    return replace(t, args=replace(t.args, facts=facts, bad=bad))


def _known(t: AnsweredTarget) -> tuple[Mapping[str, Any] | None, str | None]:
    """The facts of texts that are there, and why they cannot be used."""
    for path in (Path(t.path), store.part_path(t.path)):
        with contextlib.suppress(Damaged, OSError):
            header = store.quick_check(path, t.key)
            return (None, header["bad"]) if header["bad"] else (header["facts"], None)
    return None, t.args.bad
