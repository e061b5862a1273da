"""What decides the artefacts of a dump, and what its jobs need: specs and args of its stages."""

from __future__ import annotations

from dataclasses import dataclass

from actprobe.cache.plan import Nothing, Record, Target


@dataclass(frozen=True, kw_only=True)
class FetchArgs(Record):
    """A file as the service lists it: who holds it, its name, its bytes, the kind of its digest."""

    source: str
    file: str
    size: int
    alg: str


@dataclass(frozen=True, kw_only=True)
class AssembleSpec(Record):
    """What decides assembled activations or latents.

    content: "activations" or "latents"; array: its name in the files, where there are several. chunks,
    tokens: the digests of the files, in order, as "{alg}:{digest}". texts: key of the dataset's rows,
    where the config has it. width: number of latents, where the config says it.
    """

    content: str
    array: str | None
    site: str
    position: str
    chunks: tuple[str, ...]
    tokens: tuple[str, ...]
    texts: str | None
    width: int | None = None


@dataclass(frozen=True, kw_only=True)
class RawFile(Record):
    """A fetched file: its path here, its digest, and its name in the dump."""

    path: str
    key: str
    file: str


@dataclass(frozen=True, kw_only=True)
class AssembleArgs(Record):
    """Names as of activations and latents, and the paths of what is read."""

    source: str
    model: str
    site: str
    position: str
    texts: str | None
    chunks: tuple[RawFile, ...]
    tokens: tuple[RawFile, ...]


FetchTarget = Target[Nothing, FetchArgs]
AssembleTarget = Target[AssembleSpec, AssembleArgs]
