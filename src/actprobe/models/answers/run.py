"""The answers stage: one model, loaded once, answers the prompts of every pending dataset."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actprobe import texts
from actprobe.base.errors import Damaged
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.models.answers import loading
from actprobe.models.answers.records import AnswerTarget, Sampling
from actprobe.models.batches import batch_plan, plan_digest
from actprobe.models.progress import Progress
from actprobe.models.sources import provenance, require_unchanged
from actprobe.texts import Texts

log = logging.getLogger(__name__)

_BUDGET = {"cpu": 4096, "mps": 8192, "cuda": 65536}  # tokens per batch, those to come included


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make all targets of a batch. The model is loaded when the first prompt needs it, and once."""
    torch.set_num_threads(threads)
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(Outcome(batch, config["on_bad_dataset"], store.write_bad))
        todo: list[AnswerTarget] = out.todo()
        progress = Progress({t.item: t.cost for t in todo}, batch.loader)
        model: loading.Described | None = None
        for t in todo:
            with out.guard(t):
                rows = texts.load(t.args.prompts)  # needs no model
                if model is None:
                    settings = config["models"][batch.loader]
                    model = stack.enter_context(loading.described(batch.loader, settings, t))
                    require_unchanged(config, t.args.model, t.spec.model, t.args.place)
                out.done(t, _Dataset(t, rows, model, progress).make())
            progress.finished(t.item)
        if model is not None and model.loaded:
            first = todo[0]  # of what was loaded
            require_unchanged(config, first.args.model, first.spec.model, first.args.place)


@dataclass(frozen=True)
class _Older:
    """Answers that an older artefact has: row of this target -> row of that one."""

    path: str
    key: str
    rows: Mapping[int, int]


class _Dataset:
    """The answers to one dataset's prompts."""

    def __init__(self, t: AnswerTarget, rows: Texts, model: loading.Described, progress: Progress):
        self.t, self.model, self.progress = t, model, progress
        self.prompts = model.prompts(rows, t.spec.max_new_tokens, t.item)
        self.digests = _digests(self.prompts, t.spec.sampling)

    def make(self) -> Path:
        """The sealed part."""
        t, n, most = self.t, len(self.prompts), self.t.spec.max_new_tokens
        older = self._older()
        lack = np.array([i for i in range(n) if older is None or i not in older.rows], np.int64)
        lengths = np.array([len(p) for p in self.prompts], np.int64)
        budget = t.spec.runs.max_tokens_per_batch or _BUDGET[self.model.device.type]
        plan = [lack[rows].tolist() for rows in batch_plan(lengths[lack] + most, budget)]
        facts = {
            **self.model.facts(),
            **provenance(t.args.place),
            "n": n,
            "budget": budget,
            "batch_plan": plan_digest(plan),
            "reused": None if older is None else {"rows": len(older.rows), "from": older.key},
        }
        arrays = {
            "prompt_digests": ((n, 16), "uint8"),
            "n_prompt": ((n,), "int32"),
            "tokens": ((n, most), "int32"),
            "n_tokens": ((n,), "int32"),
            "finish": ((n,), "int8"),
        }
        with store.Part(t.path, t.record, arrays, len(plan) + 1, facts) as part:
            if len(plan) in part.pending:
                part["prompt_digests"][:] = self.digests
                part["n_prompt"][:] = lengths
                if older is not None:
                    self._copy(part, older)
                part.mark(len(plan))
            self._fill(part, plan, lengths)
            return part.finish()

    def _fill(self, part: store.Part, plan: Sequence[Sequence[int]], lengths: np.ndarray) -> None:
        todo = [u for u in part.pending if u < len(plan)]
        total = sum(int(lengths[plan[u]].sum()) for u in todo)
        for u in todo:
            for i, (tokens, finish) in zip(plan[u], self._answers(plan[u]), strict=True):
                padded = np.zeros(self.t.spec.max_new_tokens, np.int32)
                padded[: len(tokens)] = tokens
                part["tokens"][i : i + 1] = padded[None]
                part["n_tokens"][i : i + 1] = [len(tokens)]
                part["finish"][i : i + 1] = [finish]
            part.mark(u)
            self.progress.advance(self.t.item, int(lengths[plan[u]].sum()), total)

    def _answers(self, rows: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        """The answers of some rows; in halves where memory does not suffice for all at once."""
        speaker = self.model.speaker(self.t.spec)
        try:
            seeds = [self.digests[i].tobytes() for i in rows]
            return speaker.answer([self.prompts[i] for i in rows], seeds)
        except torch.cuda.OutOfMemoryError:
            if len(rows) == 1:
                raise
        torch.cuda.empty_cache()
        log.warning("%s: out of memory with %d rows; again in halves", self.t.item, len(rows))
        half = len(rows) // 2
        return self._answers(rows[:half]) + self._answers(rows[half:])

    def _older(self) -> _Older | None:
        """The artefact with most answers to these prompts that were given in the same way."""
        wanted = [d.tobytes() for d in self.digests]
        best: _Older | None = None
        for path, key in _candidates(self.t):
            with store.open_h5(path) as f:
                place = {d.tobytes(): k for k, d in enumerate(f["prompt_digests"][:])}
            rows = {i: place[d] for i, d in enumerate(wanted) if d in place}
            if len(rows) > (0 if best is None else len(best.rows)):
                best = _Older(path, key, rows)
        if best is not None:
            store.sources({self.t.path: (*self.t.inputs, best.path)})
            words = (self.t.item, len(best.rows), len(wanted), best.path)
            log.info("%s: %d of %d answers are those of %s", *words)
        return best

    def _copy(self, part: store.Part, older: _Older) -> None:
        with store.open_h5(older.path) as f:
            for name in ("tokens", "n_tokens", "finish"):
                values = f[name][:]
                for i, k in older.rows.items():
                    part[name][i : i + 1] = values[k : k + 1]


def _candidates(t: AnswerTarget) -> Iterator[tuple[str, str]]:
    """Whole artefacts that other prompts alone tell apart, with their keys."""
    wanted = {k: v for k, v in t.record.items() if k != "prompts"}
    root = Path(t.path).parent.parent
    for path in sorted(root.glob("*/*.h5")):
        with contextlib.suppress(Damaged, OSError):
            header = store.quick_check(path)
            spec = {k: v for k, v in header["spec"].items() if k != "prompts"}
            if not header["bad"] and spec == wanted and str(path) != t.path:
                yield str(path), header["key"]


def _digests(prompts: Sequence[np.ndarray], sampling: Sampling | None) -> np.ndarray:
    """A digest of each prompt's tokens, uint8 [N, 16]; of its sampling too, where there is any.

    Equal prompts are told apart then by how many stand before, so that their answers differ.
    """
    seen: Counter[bytes] = Counter()
    found = np.empty((len(prompts), 16), np.uint8)
    for i, ids in enumerate(prompts):
        content = np.ascontiguousarray(ids, "<i4").tobytes()
        if sampling is not None:
            content += f"\0{sampling.seed}\0{seen[content]}".encode()
            seen[np.ascontiguousarray(ids, "<i4").tobytes()] += 1
        digest = hashlib.blake2b(content, digest_size=16).digest()
        found[i] = np.frombuffer(digest, np.uint8)
    return found
