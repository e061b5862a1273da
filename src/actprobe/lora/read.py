"""Reading the weights of LoRA files, each file in one pass that also digests it."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.files.safetensors import ITEMSIZE, Header, Tensor, header_of
from actprobe.lora import collection, names
from actprobe.lora.adapter import Adapter, alpha_tensors, described, naming
from actprobe.lora.collection import Member
from actprobe.lora.compute import Factors
from actprobe.lora.numbers import NUMBERS, Floats, Rounding, roundings, to_float
from actprobe.lora.records import Rules

_PIECE = 1 << 22  # bytes of other tensors that are digested at once


class Values(NamedTuple):
    """The numbers of one tensor, flat."""

    x: Floats
    rounding: Rounding
    finite: bool


class Content(NamedTuple):
    """A LoRA file that was read: what it is, and its factors by module."""

    adapter: Adapter
    factors: dict[str, Factors]


def read_lora(member: Member, rules: Rules, known: tuple[str, str] | None = None) -> Content:
    """Read a file of a collection: factors in float32, convolutions flattened.

    known: identity and digest that the plan was made with (`collection.digests`); they are compared
    with the very bytes that are returned. Raises ActprobeError where they differ or the file cannot
    be read any more, BadInput naming the file when it is no plain LoRA, cut short or not finite.
    """
    try:
        with naming(member.path), open(member.path, "rb") as f:
            source = _Source(f, known is not None and known[0] == "content")
            header, values = _read(source)
            config = Path(member.config).read_bytes() if member.config else b""
            unchanged = known is None or _digest(member, known[0], source, config) == known[1]
    except (OSError, BadInput) as e:
        if known is None:
            raise
        raise ActprobeError(f"{e}; it could be read when the plan was made: run again") from None
    if not unchanged:
        raise ActprobeError(f"{member.path} was changed after the plan was made; run again")
    with naming(member.path):
        alphas = tuple((n, values[n].x.item()) for n in alpha_tensors(header.tensors))
        adapter = described(header, config.decode("utf-8"), rules, alphas)
        return Content(adapter, _factors(adapter, values))


def _digest(member: Member, identity: str, source: _Source, config: bytes) -> str:
    """What `collection.digests` would have said of what was read."""
    if identity == "content":
        found = [source.hexdigest()]
        if member.config:
            found.append(hashlib.sha256(config).hexdigest())
    else:
        found = [collection.stat_digest(os.stat(p)) for p in (member.path, member.config) if p]
    return collection.joined(found)


class _Source:
    """An open file that is read from its beginning, and digested on the way if asked to."""

    def __init__(self, f: BinaryIO, digest: bool):
        self._file, self._sha = f, hashlib.sha256() if digest else None
        self.size, self._at = os.fstat(f.fileno()).st_size, 0

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        if self._sha is not None:
            self._sha.update(data)
        self._at += len(data)
        return data

    def skip_to(self, position: int) -> None:
        """Go on to a byte."""
        if self._sha is None:
            self._at = self._file.seek(position)
        while self._at < position and self.read(min(_PIECE, position - self._at)):
            pass

    def hexdigest(self) -> str:
        """SHA-256 of the whole file."""
        assert self._sha is not None
        while self.read(_PIECE):
            pass
        return self._sha.hexdigest()


def _read(source: _Source) -> tuple[Header, dict[str, Values]]:
    """The header, and the numbers of the tensors that a LoRA is made of, by name."""
    header = header_of(source, source.size)
    found: dict[str, Values] = {}
    for run in _runs(header):
        first, last = run[0][1], run[-1][1]
        source.skip_to(first.start)
        raw = source.read(last.stop - first.start)
        if len(raw) < last.stop - first.start:
            raise BadInput(f"cut short while it was read, in {run[0][0]}")
        flat = to_float(raw, first.dtype)
        size = ITEMSIZE[first.dtype]
        starts = np.array([(t.start - first.start) // size for _, t in run])
        finite = bool(np.isfinite(flat).all())
        for (name, t), at, rounding in zip(
            run, starts, roundings(flat, starts, first.dtype), strict=True
        ):
            x = flat[at : at + (t.stop - t.start) // size]
            found[name] = Values(x, rounding, finite or bool(np.isfinite(x).all()))
    return header, found


@lru_cache(maxsize=64)
def _runs(header: Header) -> list[list[tuple[str, Tensor]]]:
    """The tensors of a LoRA in the order of the file; neighbours of one dtype stand together."""
    needed = [
        (name, t)
        for name, t in sorted(header.tensors.items(), key=lambda item: item[1].start)
        if names.belongs(name) and t.dtype in NUMBERS and t.stop > t.start
    ]
    runs: list[list[tuple[str, Tensor]]] = []
    for name, t in needed:
        last = runs[-1][-1][1] if runs else None
        if last is not None and last.stop == t.start and last.dtype == t.dtype:
            runs[-1].append((name, t))
        else:
            runs.append([(name, t)])
    return runs


def _factors(adapter: Adapter, values: dict[str, Values]) -> dict[str, Factors]:
    """The factors of every module. Raises BadInput naming the one that is not finite."""
    found = {}
    for name, m in adapter.modules.items():
        down, up = values[m.down], values[m.up]
        for side, x in (("down", down), ("up", up)):
            if not x.finite:
                raise BadInput(f"NaN or infinity in {name}:{side}")
        found[name] = Factors(
            down.x.reshape(m.rank, m.d_in),
            up.x.reshape(m.d_out, m.rank),
            m.scale,
            (down.rounding, up.rounding),
        )
    return found
