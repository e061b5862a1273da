"""From the config section `top_contexts` to targets: one table per source and dataset."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actprobe.config import nearest
from actprobe.errors import ConfigError
from actprobe.keys import DigestMemo
from actprobe.plan import Target, target

STAGE = "top_contexts"
VERSION = 1


def targets(
    config: Mapping[str, Any], known: Mapping[str, list[Target]], memo: DigestMemo
) -> list[Target]:
    """The tables that the config asks for.

    A source is whatever has tokens for rows: assembled latents (`{dump}.{site}`), activations at
    position `tokens` (`{model}/{site}.tokens`), and latents encoded from those. Raises ConfigError
    for a pattern that matches none, and for a source and dataset asked for twice.
    """
    made = [t for stage in ("activations", "assemble_latents") for t in known.get(stage, [])]
    by_path = {t.path: t for t in made if t.args["position"] == "tokens"}
    # Each source with the artefact that says which token a row is.
    sources = [(t, t) for t in by_path.values()]
    encoded = [t for t in known.get("latents", []) if t.args.get("activations") in by_path]
    sources += [(t, by_path[t.args["activations"]]) for t in encoded]
    names = {t.args["source"] for t, _ in sources}
    found: dict[str, Target] = {}
    for n, entry in enumerate(config.get("top_contexts") or []):
        tokenizer = _tokenizer(entry["tokenizer"], f"top_contexts[{n}].tokenizer", memo)
        for pattern in entry["sources"]:
            chosen = [
                (t, tokens)
                for t, tokens in sources
                if fnmatch.fnmatchcase(t.args["source"], pattern)
                and any(fnmatch.fnmatchcase(t.item, d) for d in entry["datasets"])
            ]
            if not chosen:
                raise ConfigError(
                    f"top_contexts[{n}]: no source with tokens for rows matches {pattern!r} on "
                    f"{entry['datasets']}; {nearest(pattern, names)}"
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
    config: Mapping[str, Any],
    entry: Mapping[str, Any],
    tokenizer: tuple[str | None, str | None],
    t: Target,
    tokens: Target,
) -> Target:
    path, digest = tokenizer
    params = {
        "codes": t.key,
        "tokens": tokens.key,
        "tokenizer": digest,
        **{k: entry[k] for k in ("latents", "k", "window")},
    }
    source = t.args["source"]
    args = {"codes": t.path, "tokens": tokens.path, "tokenizer": path, "source": source}
    return target(
        config["cache_dir"],
        STAGE,
        VERSION,
        f"{source}/{t.item}",
        params,
        loader="top_contexts",
        item=t.item,
        inputs=(t, tokens),
        args=args,
        ext="parquet",
        cost=t.cost,
    )


def page(config: Mapping[str, Any], path: str) -> str:
    """Where the page of a table goes: `{results_dir}/{experiment}/contexts/{source}.{dataset}.html`
    with `.` for every `/`."""
    name = path.removeprefix(f"{config['cache_dir']}/{STAGE}/").rsplit(".", 2)[0]
    folder = f"{config['results_dir']}/{config['experiment']}/contexts"
    return f"{folder}/{name.replace('/', '.')}.html"
