"""From the config to targets: each dump's files, and the artefacts assembled from them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from actprobe import keys
from actprobe.errors import ConfigError
from actprobe.keys import DigestMemo
from actprobe.models import hooks
from actprobe.plan import Target, target
from actprobe.wandb import lockfile
from actprobe.wandb.digests import raw_path

# Assembled activations are read wherever activations are, assembled latents are not.
FETCH, ASSEMBLE, ASSEMBLE_LATENTS = "wandb", "assemble", "assemble_latents"
VERSION = 1

_HOOK = re.compile(hooks.HOOK)
_KINDS = "|".join(rf"(?<![\w.]){k}" if k == "z" else k for k in hooks.HOOKS)  # not in xyz.3
_SITE = re.compile(rf"({_KINDS})\.(\d+)")


def targets(
    config: Mapping[str, Any], known: Mapping[str, list[Target]], memo: DigestMemo
) -> list[Target]:
    """For every dump the raw file targets (stage `wandb`) and the assembled ones (`assemble`,
    `assemble_latents`).

    Assembled activations lie among the extracted ones and carry the same args (`source`, `model`,
    `site`, `position`); assembled latents lie among the latents. Nothing is asked of the service:
    names and digests stand in the lock file. Raises ConfigError when there is no lock, when a
    file's site cannot be told, or when something else of that name exists.
    """
    texts = {t.item: t for t in known.get("texts", [])}
    taken = {(t.args["source"], t.item) for t in known.get("activations", [])}
    found: list[Target] = []
    for dump, entry in config.get("dumps", {}).items():
        lock = lockfile.read(config, dump)
        raw = {f: _raw(config, dump, f) for f in lock.files}
        by_path: dict[str, Target] = {}
        for t in raw.values():
            if by_path.setdefault(t.path, t).key != t.key:
                raise ConfigError(f"dumps.{dump}: two files share the name {t.path}")
        tokens = [f for f in lock.files if fnmatch.fnmatchcase(f.path, entry["tokens"])]
        if len(tokens) > 1:
            raise ConfigError(
                f"dumps.{dump}.tokens: {entry['tokens']!r} matches {len(tokens)} files, "
                "expected one"
            )
        chunks = _by_site(dump, entry, [f for f in lock.files if f not in tokens])
        found += by_path.values()
        for site, files in chunks.items():
            of_tokens = raw[tokens[0]] if tokens else None
            of_texts = texts.get(entry["dataset"])
            t = _assembled(config, dump, site, [raw[f] for f in files], of_tokens, of_texts)
            if (t.args["source"], t.item) in taken:
                raise ConfigError(
                    f"dumps.{dump}: there are already activations {t.args['source']} of {t.item}; "
                    "give the dump another model, dataset or position"
                )
            taken.add((t.args["source"], t.item))
            found.append(t)
    return found


def _raw(config: Mapping[str, Any], dump: str, f: lockfile.LockedFile) -> Target:
    return Target(
        FETCH,
        dump,
        f.path,
        f"{dump}/{f.path}",
        raw_path(config["cache_dir"], dump, f.alg, f.digest, f.path),
        f.digest,
        {},
        args={"source": f.source, "file": f.path, "size": f.size, "alg": f.alg},
        cost=float(f.size),
        raw=True,
    )


def _by_site(
    dump: str, entry: Mapping[str, Any], files: Sequence[lockfile.LockedFile]
) -> dict[str, list[lockfile.LockedFile]]:
    """The chunks of each site, in order."""
    found: dict[str, list[lockfile.LockedFile]] = {}
    if entry["sites"]:
        for site, patterns in entry["sites"].items():
            found[site] = [
                f for f in files if any(fnmatch.fnmatchcase(f.path, p) for p in patterns)
            ]
            if not found[site]:
                raise ConfigError(f"dumps.{dump}.sites.{site}: no file matches {patterns}")
    else:
        for f in files:
            found.setdefault(_site(dump, f.path), []).append(f)
    asked = entry["source"].get("artifacts") or ()
    return {site: in_order(dump, site, members, asked) for site, members in sorted(found.items())}


def _site(dump: str, path: str) -> str:
    if (m := _HOOK.search(path)) and (site := hooks.site_of(m[0])):
        return site
    if m := _SITE.search(path):
        return f"{m[1]}.{m[2]}"
    raise ConfigError(
        f"dumps.{dump}: the name {path!r} tells no site (as in blocks--2--hook_resid_pre.pt); say "
        f"which files hold which site in dumps.{dump}.sites, or leave it out in dumps.{dump}.files"
    )


def in_order(
    dump: str, site: str, files: Iterable[lockfile.LockedFile], asked: Sequence[str] = ()
) -> list[lockfile.LockedFile]:
    """The chunks of a site by the numbers in their names ("chunk_2" before "chunk_10").

    When several artifacts hold a file of the same name, artifact after artifact: as `asked` for in
    the config, otherwise by the numbers in their names. Raises ConfigError when one file occurs
    twice, or when the names differ in one number only and that number has a gap.
    """

    def by_artifact(f: lockfile.LockedFile) -> tuple[Any, ...]:
        return _position(f.source, asked), _numbers(f.source), _numbers(f.path)

    ordered = sorted(files, key=lambda f: _numbers(f.path))
    if len({f.path for f in ordered}) < len(ordered):
        ordered.sort(key=by_artifact)
        for a, b in pairwise(ordered):
            if (a.source, a.path) == (b.source, b.path):
                raise ConfigError(f"dumps.{dump}: {a.path} of {a.source} occurs twice in the lock")
    rows = sorted(_numbers(f.path) for f in ordered)
    if len({len(r) for r in rows}) == 1 and len(rows) > 1:
        varying = [column for column in zip(*rows, strict=True) if len(set(column)) > 1]
        if len(varying) == 1 and isinstance(varying[0][0], int):
            first, last = varying[0][0], varying[0][-1]
            missing = sorted(set(range(first, last + 1)) - set(varying[0]))
            if missing:
                raise ConfigError(
                    f"dumps.{dump}: chunks of {site} run from {first} to {last}, but "
                    f"{', '.join(map(str, missing[:5]))} are missing"
                )
    return ordered


def _numbers(name: str) -> tuple[Any, ...]:
    """A name cut into its texts and numbers."""
    return tuple(int(p) if i % 2 else p for i, p in enumerate(re.split(r"(\d+)", name)))


def _position(source: str, asked: Sequence[str]) -> int:
    """Place of an artifact version among those asked for, whose versions may be aliases."""
    if source in asked:
        return asked.index(source)
    names = [a.partition(":")[0] for a in asked]
    name = source.partition(":")[0]
    return names.index(name) if name in names else len(names)


def _assembled(
    config: Mapping[str, Any],
    dump: str,
    site: str,
    chunks: Sequence[Target],
    tokens: Target | None,
    texts: Target | None,
) -> Target:
    entry = config["dumps"][dump]
    dense = entry["content"] == "activations"
    position = entry["position"] if dense else "tokens"
    params = {
        "content": entry["content"],
        "array": entry["array"],
        "site": site,
        "position": position,
        "chunks": [f"{t.args['alg']}:{t.key}" for t in chunks],
        "tokens": tokens and f"{tokens.args['alg']}:{tokens.key}",
        "texts": texts and texts.args["rows"],
    }
    if dense:
        source = f"{entry['model']}/{site}.{position}"
        name = f"{entry['model']}/{entry['dataset']}/{site}.{position}"
    else:
        source = f"{dump}.{site}"
        name = f"{source}/{entry['dataset']}"
        params["width"] = entry["width"]
    args = {
        "source": source,
        "model": entry["model"],
        "site": site,
        "position": position,
        "content": entry["content"],
        "chunks": [{"path": t.path, "key": t.key, "file": t.args["file"]} for t in chunks],
        "tokens": tokens and {"path": tokens.path, "key": tokens.key, "file": tokens.args["file"]},
        "texts": texts and texts.path,
    }
    inputs = [*chunks, *([tokens] if tokens else []), *([texts] if texts else [])]
    made = target(
        config["cache_dir"],
        ASSEMBLE if dense else ASSEMBLE_LATENTS,
        VERSION,
        name,
        params,
        loader=dump,
        item=entry["dataset"],
        inputs=inputs,
        args=args,
        cost=sum(t.cost for t in chunks),
    )
    # Where extracted activations and encoded latents lie, so that every reader finds one kind.
    folder = "activations" if dense else "latents"
    path = f"{config['cache_dir']}/{folder}/{name}.{keys.short(made.key)}.h5"
    return replace(made, path=path)
