"""From the config to targets: each dump's files, and the artefacts assembled from them."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace

from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Nothing, Target, target
from actprobe.config import Config
from actprobe.config.dumps import Dump
from actprobe.dumps import lockfile
from actprobe.dumps.digests import raw_path
from actprobe.dumps.names import by_site, in_order
from actprobe.dumps.records import (
    AssembleArgs,
    AssembleSpec,
    AssembleTarget,
    FetchArgs,
    FetchTarget,
    RawFile,
)

# Assembled activations are read wherever activations are, assembled latents are not.
FETCH, ASSEMBLE, ASSEMBLE_LATENTS = "dumps", "assemble", "assemble_latents"
VERSION = 1


def targets(config: Config, known: Mapping[str, list[Target]], memo: DigestMemo) -> list[Target]:
    """For every dump the raw file targets (stage `dumps`) and the assembled ones (`assemble`,
    `assemble_latents`).

    Assembled activations lie among the extracted ones and carry the same args (`source`, `model`,
    `site`, `position`); assembled latents lie among the latents. Nothing is asked of the service:
    names and digests stand in the lock file. Raises ConfigError when there is no lock, when a
    file's site cannot be told, or when something else of that name exists.
    """
    texts = {t.item: t for t in known.get("texts", [])}
    taken = {(t.args.source, t.item) for t in known.get("activations", [])}
    found: list[Target] = []
    for dump, entry in config.dumps.items():
        lock = lockfile.read(config, dump)
        raw = {f: _raw(config, dump, f) for f in lock.files}
        by_path: dict[str, FetchTarget] = {}
        for of in raw.values():
            if by_path.setdefault(of.path, of).key != of.key:
                raise ConfigError(f"dumps.{dump}: two files share the name {of.path}")
        tokens = _tokens(dump, entry, lock.files)
        held = {f for f in lock.files if fnmatch.fnmatchcase(f.path, entry.tokens)}
        chunks = by_site(dump, entry, [f for f in lock.files if f not in held])
        found += by_path.values()
        for site, files in chunks.items():
            if len(tokens) > 1 and len(tokens) != len(files):
                raise ConfigError(
                    f"dumps.{dump}.tokens: {entry.tokens!r} matches {len(tokens)} files, but "
                    f"{site} has {len(files)} chunks; expected one for all chunks, or one for each"
                )
            of_texts = texts.get(entry.dataset)
            of_tokens = [raw[f] for f in tokens]
            t = _assembled(config, dump, site, [raw[f] for f in files], of_tokens, of_texts)
            if (t.args.source, t.item) in taken:
                raise ConfigError(
                    f"dumps.{dump}: there are already activations {t.args.source} of {t.item}; "
                    "give the dump another model, dataset or position"
                )
            taken.add((t.args.source, t.item))
            found.append(t)
    return found


def _raw(config: Config, dump: str, f: lockfile.LockedFile) -> FetchTarget:
    return Target(
        FETCH,
        dump,
        f.path,
        f"{dump}/{f.path}",
        raw_path(config.cache_dir, dump, f.alg, f.digest, f.path),
        f.digest,
        Nothing(),
        args=FetchArgs(source=f.source, file=f.path, size=f.size, alg=f.alg),
        cost=float(f.size),
        raw=True,
    )


def _tokens(
    dump: str, entry: Dump, files: Sequence[lockfile.LockedFile]
) -> list[lockfile.LockedFile]:
    """The files with tokens: one for all chunks, or one for each, in order."""
    found = [f for f in files if fnmatch.fnmatchcase(f.path, entry.tokens)]
    if len({(f.alg, f.digest) for f in found}) == 1:  # the same beside every chunk
        return found[:1]
    return in_order(dump, "tokens", found, entry.source.artifacts or ())


def _assembled(
    config: Config,
    dump: str,
    site: str,
    chunks: Sequence[FetchTarget],
    tokens: Sequence[FetchTarget],
    texts: Target | None,
) -> AssembleTarget:
    entry = config.dumps[dump]
    dense = entry.content == "activations"
    position = entry.position if dense else "tokens"
    spec = AssembleSpec(
        content=entry.content,
        array=entry.array,
        site=site,
        position=position,
        chunks=tuple(f"{t.args.alg}:{t.key}" for t in chunks),
        tokens=tuple(f"{t.args.alg}:{t.key}" for t in tokens),
        texts=texts.args.rows if texts else None,
        width=None if dense else entry.width,
    )
    if dense:
        source = f"{entry.model}/{site}.{position}"
        name = f"{entry.model}/{entry.dataset}/{site}.{position}"
    else:
        source = f"{dump}.{site}"
        name = f"{source}/{entry.dataset}"
    args = AssembleArgs(
        source=source,
        model=entry.model,
        site=site,
        position=position,
        texts=texts.path if texts else None,
        chunks=tuple(map(_fetched, chunks)),
        tokens=tuple(map(_fetched, tokens)),
    )
    inputs = [*chunks, *tokens, *([texts] if texts else [])]
    made = target(
        config.cache_dir,
        ASSEMBLE if dense else ASSEMBLE_LATENTS,
        VERSION,
        name,
        spec,
        loader=dump,
        item=entry.dataset,
        inputs=inputs,
        args=args,
        cost=sum(t.cost for t in chunks),
    )
    # Where extracted activations and encoded latents lie, so that every reader finds one kind.
    folder = "activations" if dense else "latents"
    path = f"{config.cache_dir}/{folder}/{name}.{keys.short(made.key)}.h5"
    return replace(made, path=path)


def _fetched(t: FetchTarget) -> RawFile:
    return RawFile(path=t.path, key=t.key, file=t.args.file)
