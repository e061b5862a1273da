"""From the config to activation targets: one per model, dataset, site and position."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo, spec_key
from actprobe.cache.plan import Target, target
from actprobe.config import matching, nearest
from actprobe.models import families
from actprobe.models.grammar import expand_site, is_labelled, is_masked, is_said, position_spec
from actprobe.models.records import (
    ActivationArgs,
    ActivationSpec,
    ActivationTarget,
    Position,
    Reads,
)
from actprobe.models.sources import Source, locate
from actprobe.models.templates import check_chat
from actprobe.texts import TextArgs

STAGE = "activations"
VERSION = 6
_CHARACTERS = 4.0  # of a token, about
_TEMPLATE = 8  # tokens of a row that are not its text, about
_READS = (  # settings of a model that decide what it reads
    "max_length", "truncation_side", "add_special_tokens", "prepend_bos", "special_tokens_in_text",
    "chat",
)  # fmt: skip
_RUNS = (  # those that decide how it is run
    "layer_list",
    "dtype",
    "attn_implementation",
    "max_tokens_per_batch",
    "share_prefix",
)
_LOADS = (  # those that decide, with its files, what is loaded
    "weights", "seed", "n_layers", "d_model", "layer_list", "dtype", "quantization", "device",
    "attn_implementation", "remote_code",
)  # fmt: skip


def targets(
    config: Mapping[str, Any], known: Mapping[str, list[Target]], memo: DigestMemo
) -> list[ActivationTarget]:
    """Every activation artefact that the config's `activations` list asks for.

    Layers are resolved here, so that `resid_post.-1` and `resid_post.5` of a six-layer model are
    one artefact. The key holds the texts of the dataset in their order, never its labels, its file
    or its name. Raises ConfigError naming the entry for an unknown model, dataset, site, layer or
    position.
    """
    texts = {t.item: t for t in known.get("texts", [])}
    wheels = {t.item: t for t in known.get("wheels", [])}
    sources: dict[str, Source] = {}
    found: dict[str, ActivationTarget] = {}
    wanted = [
        (f"activations[{n}]", name, entry)
        for n, entry in enumerate(config.get("activations") or [])
        for name in (entry["model"], entry.get("minus"))
        if name is not None
    ]
    for where, name, _ in wanted:
        if name not in config["models"]:
            known_models = nearest(name, config["models"])
            raise ConfigError(f"{where}: unknown model {name!r}; {known_models}")
        if name not in sources:
            sources[name] = locate(config, name, wheels, memo)
            check_chat(name, config["models"][name], sources[name].place)
    loader_of = loaders(config["models"], sources)
    for where, name, entry in wanted:
        model, source = config["models"][name], sources[name]
        sites = _sites(name, model, source, entry["sites"], where)
        spans = entry.get("spans") or {}
        positions = {p: position_spec(p, spans, where) for p in entry["positions"]}
        chosen = matching(entry.get("datasets", ["*"]), texts, where, "dataset") if texts else []
        _check_chats(name, model, source, [texts[d] for d in chosen], positions, where)
        for dataset in chosen:
            for site in sites:
                for position, meaning in positions.items():
                    t = _target(
                        config, name, model, source, texts[dataset], site, position, meaning,
                        entry.get("reuse_rows", False), loader_of[name],
                    )  # fmt: skip
                    found[t.path] = t
    together = Counter((t.args.model, t.item) for t in found.values())  # in one pass
    return [replace(t, cost=t.cost / together[t.args.model, t.item]) for t in found.values()]


def _tokens(texts: TextArgs, max_length: int | None) -> float:
    """About how many tokens of a dataset pass through a model."""
    facts = texts.facts or {}
    if not facts.get("characters"):
        return texts.bytes / _CHARACTERS
    n = facts["n"]
    of_text = facts["characters"] / n / _CHARACTERS
    return float(n * (_TEMPLATE + min(of_text, max_length or of_text)))


def loaders(
    models: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Source]
) -> dict[str, str]:
    """For each of these models the name of what a job loads: models that differ in adapters, or in how
    they read texts, have their weights in common. Weights that are spread (`device_map`) lie where no
    adapter can be taken off again."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name, source in sources.items():
        model = models[name]
        weights = {"base": source.base, **{k: model[k] for k in _LOADS}}
        alone = name if model["device_map"] is not None else None
        alike[spec_key({**weights, "alone": alone})].append(name)
    return {
        name: names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for names in alike.values()
        for name in names
    }


def _check_chats(
    name: str,
    model: Mapping[str, Any],
    source: Source,
    chosen: Sequence[Target],
    positions: Mapping[str, Position],
    where: str,
) -> None:
    """Raise ConfigError for chats without a template, for spans of chats in texts, and for labelled
    parts where labels are of whole rows."""
    facts = {t.item: t.args.facts for t in chosen}
    chats = [d for d, f in facts.items() if f and f.get("chats")]
    if chats:
        check_chat(name, model, source.place, f"datasets.{chats[0]} holds chats")
    labelled = [p for p, meaning in positions.items() if is_labelled(meaning)]
    if whole := [d for d, f in facts.items() if f and f.get("parts") is None]:
        for p in labelled:
            raise ConfigError(
                f"{where}: position {p} takes the part of each row that its label is of, and the labels "
                f"of dataset {whole[0]} are of whole rows: name other `datasets`, or set `rows: true` "
                "in its `spans` or `turns`"
            )
    spans = [p for p, meaning in positions.items() if is_said(meaning)]
    plain = [d for d, f in facts.items() if f and not f.get("chats")]
    if spans and plain and not model["chat"]:
        raise ConfigError(
            f"{where}: position {spans[0]} is for chats, and dataset {plain[0]} holds texts; name the "
            f"datasets of chats in `datasets`, or write models.{name}.chat: {{}}"
        )


def _sites(
    name: str, model: Mapping[str, Any], source: Source, patterns: list[str], where: str
) -> list[str]:
    n = model.get("n_layers")
    if source.config is not None:
        found = families.n_layers(source.config)
        if n is not None and found is not None and n != found:
            raise ConfigError(f"models.{name}.n_layers: {n}, but its config.json says {found}")
        n = found or n
    try:
        sites = dict.fromkeys(s for p in patterns for s in expand_site(p, n, f"{where} ({name})"))
    except ConfigError as e:
        why = source.place.get("refused") or source.place.get("unreachable")
        if why is None:
            raise
        raise ConfigError(f"{e}; its config.json cannot be had: {why}") from None
    if source.config is not None:
        for site in sites:
            reason = families.refusal(source.config, site.partition(".")[0])
            if reason:
                raise ConfigError(f"{where} ({name}): site {site!r}: {reason}")
    return list(sites)


def _target(
    config: Mapping[str, Any],
    name: str,
    model: Mapping[str, Any],
    source: Source,
    texts: Target,
    site: str,
    position: str,
    meaning: Position,
    reuse_rows: bool,
    loader: str,
) -> ActivationTarget:
    facts = texts.args.facts or {}
    masked = is_masked(meaning)
    reads = Reads(
        **{k: model[k] for k in _READS},
        exclude_special=model["exclude_special"] if masked else None,
        exclude_first=model["exclude_first"] if masked else None,
    )
    spec = ActivationSpec(
        texts=texts.args.rows,
        parts=facts.get("parts", texts.key) if is_labelled(meaning) else None,
        model=dict(source.identity),
        tokens=reads,
        site=site,
        position=meaning,
        **{k: model[k] for k in _RUNS},
    )
    args = ActivationArgs(
        source=f"{name}/{site}.{position}",
        model=name,
        site=site,
        position=position,
        texts=texts.path,
        place=source.place_of(site),
        reuse_rows=reuse_rows,
    )
    return target(
        config["cache_dir"],
        STAGE,
        VERSION,
        f"{name}/{texts.item}/{site}.{position}",
        spec,
        loader=loader,
        item=texts.item,
        inputs=(texts, *source.inputs),
        args=args,
        cost=_tokens(texts.args, model["max_length"]),
        movable=True,
    )
