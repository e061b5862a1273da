"""The activations stage: one model, loaded once, over every pending dataset x site x position."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from actprobe import store, texts
from actprobe.errors import ActprobeError, BadInput, Damaged
from actprobe.jobs import Outcome
from actprobe.models import artefact, extract, norms, open_files, reuse, together
from actprobe.models.batches import plan_digest
from actprobe.models.positions import Reduction
from actprobe.models.prepared import Prepared, position_of
from actprobe.models.progress import Progress
from actprobe.models.session import Models, Session
from actprobe.models.sites import ModelFailed
from actprobe.models.sources import provenance, require_unchanged
from actprobe.models.tokens import shared_prefix
from actprobe.plan import Batch, Target

log = logging.getLogger(__name__)

_MIN_PREFIX = 8  # fewer shared tokens are not worth the copies of their keys and values
_HELD = 1 << 28  # bytes of tokens kept from before the weights are loaded; the rest is made again
_MARK_SECONDS = 1.0  # how often finished batches are made safe: the most that a kill can cost


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make all targets of a batch. Weights are loaded when the first dataset needs them, and once.

    A dataset that cannot be used, or a row with non-finite activations, is reported to the
    outcome; the other targets go on.
    """
    torch.set_num_threads(threads)
    open_files.raise_limit()
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(Outcome(batch, config["on_bad_dataset"], store.write_bad))
        todo: dict[tuple[str, str], list[Target]] = defaultdict(list)
        for t in out.todo():
            todo[t.args["model"], t.item].append(t)
        costs = {_called(*k): sum(t.cost for t in ts) for k, ts in todo.items()}
        progress = Progress(costs, batch.loader)
        models: Models | None = None
        ready: dict[str, list[Prepared]] = defaultdict(list)
        held = 0
        for (name, _), targets in todo.items():
            with out.guard(*targets):
                rows = texts.load(targets[0].args["texts"])  # needs no model
                if models is None:
                    pending = [t for ts in todo.values() for t in ts]
                    models = stack.enter_context(Models(config["models"], pending))
                found = models.described(name)
                if not ready[name]:
                    require_unchanged(config, targets[0])  # the tokenizer, which was just read
                prepared = Prepared(found.reading, rows, targets, out)
                ready[name].append(prepared)
                held += prepared.nbytes
                if held > _HELD:
                    held -= prepared.nbytes
                    prepared.let_go()
        for name, of_model in ready.items():
            assert models is not None
            _make(models, name, of_model, out, progress, config)


def _make(
    models: Models,
    name: str,
    ready: Sequence[Prepared],
    out: Outcome,
    progress: Progress,
    config: Mapping[str, Any],
) -> None:
    """Make what is wanted of one model."""
    with contextlib.ExitStack() as stack:
        session: Session | None = None
        for p in ready:
            with out.guard(*p.targets):
                for group in _without_model(p, out):
                    if session is None:
                        session = stack.enter_context(models.session(name))
                        require_unchanged(config, p.targets[0])  # what was just loaded
                    _Dataset(session, p, group, out, progress).make()
            p.let_go()
            progress.finished(_called(name, p.name))
        if session and session.used and not session.checked:
            log.warning(
                "%s: no self-check: no two rows that fit into a batch, or none with finite values",
                name,
            )


def _called(model: str, dataset: str) -> str:
    return f"{model} on {dataset}"


def _without_model(prepared: Prepared, out: Outcome) -> list[reuse.Group]:
    """Make the targets of a dataset that earlier artefacts have wholly; returns what is left."""
    if not prepared.targets:
        return []
    prepared.held()
    left = []
    for t in prepared.targets:
        part = reuse.copy_equal(t, prepared)
        if part is None:
            left.append(t)
        else:
            out.done(t, part)
    groups = reuse.groups(left, prepared)
    for g in groups:
        for t in g.targets if not len(g.lack) else ():
            out.done(t, reuse.copy_all_rows(t, prepared, g.older[t.path]))
    return [g for g in groups if len(g.lack)]


class _Dataset:
    """Pending targets of one dataset that lack the same rows."""

    def __init__(
        self,
        session: Session,
        prepared: Prepared,
        group: reuse.Group,
        out: Outcome,
        progress: Progress,
    ):
        self.session, self.prepared, self.out, self.progress = session, prepared, out, progress
        self.name, self.ids, self.targets = prepared.name, prepared.ids, group.targets
        self.older, self.lack = group.older, group.lack
        self.tokens, self.reductions = prepared.tokens, prepared.reductions
        self.prefix: extract.Prefix | None = None
        self._offsets: np.ndarray | None = None  # of position `tokens`

    def make(self) -> None:
        """Make the targets; when memory does not suffice, begin again with half the budget.

        Rounding depends on the budget, so one artefact never mixes two.
        """
        together.require_alike(self.session.model, self.tokens.lengths, self.ids)
        begun = next(filter(None, map(self._begun, self.targets)), {})
        budget = begun.get("budget") or self.session.budget_for(self.tokens.lengths[self.lack])
        while True:
            try:
                self.prefix = self.prefix or self._make_prefix()
                if not self.session.checked:
                    self._self_check(budget)
                for targets in open_files.in_turn(self.targets, self.name):
                    self._fill(budget, targets)
                return
            except extract.OutOfMemory as e:
                budget = self._smaller(budget, e)
            except ModelFailed as e:
                raise BadInput(f"{self.session.name} on {self.name}: {e}") from e

    def _make_prefix(self) -> extract.Prefix | None:
        wanted = self.session.settings["share_prefix"]
        n = shared_prefix(self.tokens) if wanted else 0
        if n < _MIN_PREFIX or not together.may_share_prefix(
            self.session.model, self.tokens.lengths
        ):
            return None
        log.info("%s: the first %d tokens of all rows are computed once", self.name, n)
        return extract.make_prefix(self.session.model, self.tokens, n, _wanted(self.targets))

    def _begun(self, t: Target) -> Mapping[str, Any] | None:
        """Facts of a part of this target that an earlier run on this kind of machine began."""
        with contextlib.suppress(Damaged, FileNotFoundError):
            header = store.read_header(store.part_path(t.path))
            if header["key"] == t.key and self.session.facts().items() <= header["facts"].items():
                return header["facts"]
        return None

    def _self_check(self, budget: int) -> None:
        session, wanted = self.session, _wanted(self.targets)
        worst = extract.self_check(
            session.model, self.tokens, self.reductions, wanted, budget, session.name, self.prefix
        )
        if worst is not None:
            log.info("%s: self-check passed, largest relative difference %.0e", session.name, worst)
            session.checked = True

    def _smaller(self, budget: int, e: Exception) -> int:
        longest = int(self.tokens.lengths.max())
        if budget <= longest:
            raise ActprobeError(
                f"{self.session.name} on {self.name}: no memory for one row of {longest} tokens "
                f"({e}); set max_length, or take more memory"
            ) from e
        budget = max(budget // 2, longest)
        log.warning("%s: out of memory; again with %d tokens per batch", self.name, budget)
        if self.session.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return budget

    def _fill(self, budget: int, targets: Sequence[Target]) -> None:
        """Run every batch that some part still lacks; write to each part what it lacks."""
        shared = self.prefix.length if self.prefix else 0
        lengths = self.tokens.lengths[self.lack]
        of_lack = together.plan(self.session.model, lengths, shared, budget)
        plan = [self.lack[rows].tolist() for rows in of_lack]
        facts = {
            **self.session.facts(),
            "budget": budget,
            "batch_plan": plan_digest(plan),
            "shared_prefix": shared,
            **provenance(self.targets[0].args["place"]),
        }
        by_position = self._norms(plan, budget, targets)
        with contextlib.ExitStack() as stack:
            parts = {
                t.path: stack.enter_context(
                    self._part(t, plan, {**facts, "norms": by_position[t.path]})
                )
                for t in targets
            }
            for t in targets:
                if t.path in self.older and len(plan) in parts[t.path].pending:
                    kept = self._kept(self.reductions[position_of(t)])
                    reuse.copy_rows(parts[t.path], self.older[t.path], kept)
                    parts[t.path].mark(len(plan))
            lacking = {path: set(part.pending) for path, part in parts.items()}
            live = list(targets)
            todo = sorted(set().union(*lacking.values()))
            n_tokens = {u: int(self.tokens.lengths[plan[u]].sum()) for u in todo}
            total = sum(n_tokens.values())
            unmarked: list[int] = []
            marked_at = time.monotonic()
            self.session.used |= bool(todo)
            for u in todo:
                now = [t for t in live if u in lacking[t.path]]
                for t in self._batch(plan[u], now, parts):
                    live.remove(t)
                unmarked.append(u)
                if u == todo[-1] or time.monotonic() - marked_at > _MARK_SECONDS:
                    for t in live:
                        parts[t.path].mark(*lacking[t.path].intersection(unmarked))
                    unmarked, marked_at = [], time.monotonic()
                self.progress.advance(_called(self.session.name, self.name), n_tokens[u], total)
            for t in live:
                self.out.done(t, parts[t.path].finish())

    def _norms(
        self, plan: Sequence[Sequence[int]], budget: int, targets: Sequence[Target]
    ) -> dict[str, Any]:
        """Norms by position for each target: those of its part that was begun, else measured."""
        found = {}
        for t in targets:
            begun = self._begun(t)
            if begun and begun.get("budget") == budget:
                found[t.path] = begun.get("norms")
        left = [t for t in targets if found.get(t.path) is None]
        sites = dict.fromkeys(t.args["site"] for t in left)
        rows = plan[len(plan) // 2]
        measured = (
            norms.measure(self.session.model, self.tokens, rows, sites, self.prefix)
            if sites
            else {}
        )
        return found | {t.path: measured[t.args["site"]] for t in left}

    def _part(
        self, t: Target, plan: Sequence[Sequence[int]], facts: Mapping[str, Any]
    ) -> store.Part:
        site, reduction = t.args["site"], self.reductions[position_of(t)]
        dtype = "float32" if reduction.kind == "mean" else self.session.settings["dtype"]
        return artefact.begin(
            t.path,
            t.spec,
            self.tokens,
            reduction.keep if reduction.kind == "tokens" else None,
            self.session.widths[site],
            dtype,
            len(plan) + (t.path in self.older),  # the last unit: rows of an older artefact
            {
                **facts,
                **self.prepared.facts(t),
                **(self.older[t.path].facts if t.path in self.older else {}),
                "module": self.session.model.paths[site],
            },
            self.prepared.digests(t),
        )

    def _batch(
        self, rows: Sequence[int], targets: Sequence[Target], parts: Mapping[str, store.Part]
    ) -> list[Target]:
        """One forward pass; returns the targets whose values are not finite."""
        if not targets:
            return []
        values = extract.forward(
            self.session.model, self.tokens, rows, self.reductions, _wanted(targets), self.prefix
        )
        bad = []
        for t in targets:
            reduction = self.reductions[position_of(t)]
            value = values[t.args["site"], position_of(t)]
            if not torch.isfinite(value).all():
                parts[t.path].close()  # a tombstone may take its place
                self.out.bad(t, self._non_finite(value, reduction, rows, t))
                bad.append(t)
                continue
            x, array = parts[t.path]["x"], extract.to_storable(value)
            if reduction.kind == "tokens":
                artefact.write_ragged(x, array, rows, self._kept(reduction))
            else:
                artefact.write_rows(x, array, rows)
        return bad

    def _kept(self, reduction: Reduction) -> Any:
        """Where each row begins, int64 [N + 1]; None where a row is one vector."""
        if reduction.kind != "tokens":
            return None
        if self._offsets is None:
            assert reduction.keep is not None
            self._offsets = artefact.kept_offsets(self.tokens, reduction.keep)
        return self._offsets

    def _non_finite(
        self, value: torch.Tensor, reduction: Reduction, rows: Sequence[int], t: Target
    ) -> BadInput:
        """The error for a non-finite activation, naming the first such row and the site."""
        k = int((~torch.isfinite(value).all(dim=1)).nonzero()[0, 0])
        if reduction.kind == "tokens":
            assert reduction.keep is not None
            ends = np.cumsum([reduction.keep[self.tokens.row(i)].sum() for i in rows])
            k = int(np.searchsorted(ends, k, side="right"))
        half = t.spec["dtype"] == "float16"
        hint = " (float16 overflows above 65504; bfloat16 does not)" if half else ""
        return BadInput(
            f"{self.session.name} on {self.name}: row {self.ids[rows[k]]!r} has non-finite "
            f"activations at {t.args['site']}, position {t.args['position']}{hint}"
        )


def _wanted(targets: Sequence[Target]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = defaultdict(list)
    for t in targets:
        wanted[t.args["site"]].append(position_of(t))
    return wanted
