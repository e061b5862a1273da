"""From the config section `top_contexts` to targets: one table per source and dataset."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Record, SourceArgs, Target, target
from actprobe.config import Config, nearest
from actprobe.config.top_contexts import TopContext
from actprobe.sae import LatentArgs

STAGE = "top_contexts"
VERSION = 1

Source = Target[Any, SourceArgs]


@dataclass(frozen=True, kw_only=True)
class ContextSpec(Record):
    """What decides a table: keys of the codes and of what says which token a row is; the digest of the
    tokenizer; which latents or how many, contexts of each, tokens on either side of a peak."""

    codes: str
    tokens: str
    tokenizer: str | None
    latents: int | tuple[int, ...]
    k: int
    window: int


@dataclass(frozen=True, kw_only=True)
class ContextArgs(Record):
    """The name of the source, and the paths of what is read."""

    source: str
    codes: str
    tokens: str
    tokenizer: str | None


ContextTarget = Target[ContextSpec, ContextArgs]


def targets(
    config: Config, known: Mapping[str, list[Target]], memo: DigestMemo
) -> list[ContextTarget]:
    """The tables that the config asks for.

    A source is whatever has tokens for rows: assembled latents (`{dump}.{site}`), activations at
    position `tokens` (`{model}/{site}.tokens`), and latents encoded from those. Raises ConfigError
    for a pattern that matches none, and for a source and dataset asked for twice.
    """
    made = [t for stage in ("activations", "assemble_latents") for t in known.get(stage, [])]
    by_path: dict[str, Source] = {t.path: t for t in made if t.args.position == "tokens"}
    # Each source with the artefact that says which token a row is.
    sources = [(t, t) for t in by_path.values()]
    encoded = [t for t in known.get("latents", []) if isinstance(t.args, LatentArgs)]
    sources += [(t, by_path[t.args.activations]) for t in encoded if t.args.activations in by_path]
    names = {t.args.source for t, _ in sources}
    found: dict[str, ContextTarget] = {}
    for n, entry in enumerate(config.top_contexts):
        tokenizer = _tokenizer(entry.tokenizer, f"top_contexts[{n}].tokenizer", memo)
        for pattern in entry.sources:
            chosen = [
                (t, tokens)
                for t, tokens in sources
                if fnmatch.fnmatchcase(t.args.source, pattern)
                and any(fnmatch.fnmatchcase(t.item, d) for d in entry.datasets)
            ]
            if not chosen:
                raise ConfigError(
                    f"top_contexts[{n}]: no source with tokens for rows matches {pattern!r} on "
                    f"{entry.datasets}; {nearest(pattern, names)}"
                )
            for t, tokens in chosen:
                made_here = _target(config, entry, tokenizer, t, tokens)
                if found.setdefault(made_here.name, made_here).key != made_here.key:
                    raise ConfigError(f"top_contexts: {made_here.name} is asked for twice")
    return list(found.values())


def _tokenizer(given: str | None, where: str, memo: DigestMemo) -> tuple[str | None, str | None]:
    """Path and digest of a tokenizer.json. Raises ConfigError when it is no file that can be read."""
    if given is None:
        return None, None
    path = Path(given).expanduser()
    if path.is_dir():
        raise ConfigError(f"{where}: {path} is a folder; write {path / 'tokenizer.json'}")
    try:
        return str(path), memo.sha256(path)
    except OSError as e:
        raise ConfigError(f"{where}: {path} cannot be read: {e.strerror}") from None


def _target(
    config: Config,
    entry: TopContext,
    tokenizer: tuple[str | None, str | None],
    t: Source,
    tokens: Source,
) -> ContextTarget:
    path, digest = tokenizer
    latents = entry.latents
    spec = ContextSpec(
        codes=t.key,
        tokens=tokens.key,
        tokenizer=digest,
        latents=latents if isinstance(latents, int) else tuple(latents),
        k=entry.k,
        window=entry.window,
    )
    source = t.args.source
    args = ContextArgs(source=source, codes=t.path, tokens=tokens.path, tokenizer=path)
    return target(
        config.cache_dir,
        STAGE,
        VERSION,
        f"{source}/{t.item}",
        spec,
        loader="top_contexts",
        item=t.item,
        inputs=(t, tokens),
        args=args,
        ext="parquet",
        cost=t.cost,
    )


def page(config: Config, path: str) -> str:
    """Where the page of a table goes: `{results_dir}/{experiment}/contexts/{source}.{dataset}.html`
    with `.` for every `/`."""
    name = path.removeprefix(f"{config.cache_dir}/{STAGE}/").rsplit(".", 2)[0]
    folder = f"{config.results_dir}/{config.experiment}/contexts"
    return f"{folder}/{name.replace('/', '.')}.html"
