"""One dataset through one model: batches computed and written to the parts of its targets."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from actprobe.base.errors import ActprobeError, BadInput, Damaged
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.models import artefact, extract, norms, open_files, reuse, sharing, together
from actprobe.models.batches import plan_digest
from actprobe.models.positions import Reduction
from actprobe.models.prepared import Prepared, position_of
from actprobe.models.progress import Progress
from actprobe.models.records import ActivationTarget
from actprobe.models.session import Session
from actprobe.models.sharing import Sharing
from actprobe.models.sites import ModelFailed
from actprobe.models.sources import provenance

log = logging.getLogger(__name__)

_MARK_SECONDS = 1.0  # how often finished batches are made safe: the most that a kill can cost


def called(model: str, dataset: str) -> str:
    """What the log calls a dataset as one model reads it."""
    return f"{model} on {dataset}"


class Dataset:
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
        self._held: tuple[tuple[int, int], extract.Prefix] | None = None
        self.sharing = self._share()
        self.carried = self.sharing.carried()
        self._offsets: np.ndarray | None = None  # of position `tokens`

    def make(self) -> None:
        """Make the targets; when memory does not suffice, begin again with half the budget.

        Rounding depends on the budget, so one artefact never mixes two.
        """
        together.require_alike(self.session.model, self.tokens.lengths, self.ids)
        begun = next(filter(None, map(self._begun, self.targets)), {})
        lengths = self.tokens.lengths[list(self.carried)]
        budget = begun.get("budget") or self.session.budget_for(lengths)
        while True:
            try:
                if not self.session.checked:
                    self._self_check(budget)
                for targets in open_files.in_turn(self.targets, self.name):
                    self._fill(budget, targets)
                return
            except extract.OutOfMemory as e:
                budget = self._smaller(budget, e)
            except ModelFailed as e:
                raise BadInput(f"{self.session.name} on {self.name}: {e}") from e

    def _share(self) -> Sharing:
        """How the rows that lack share what they begin with."""
        model, lengths = self.session.model, self.tokens.lengths
        if (
            not self.session.settings["share_prefix"]
            or self.tokens.types is not None
            or not together.may_share_prefix(model, lengths)
        ):
            return sharing.nothing(self.lack)
        found = sharing.shared(self.tokens, self.lack, self.session.per_pass)
        told = found.facts(lengths)
        log.info(
            "%s: %d of %d rows are read inside others, %d go on from %d beginnings: %d of %d tokens "
            "need no computing",
            self.name, told["inside"], len(self.lack), told["behind"], told["prefixes"],
            told["tokens_saved"], lengths[self.lack].sum(),
        )  # fmt: skip
        return found

    def _prefix(self, lot: together.Lot) -> extract.Prefix | None:
        """What the rows of a batch share, computed when the first of its group is; one is held."""
        if lot.shared == 0:
            return None
        which = (lot.group, lot.shared)
        if self._held is None or self._held[0] != which:
            self._held = None  # before the next one is made
            model, sites = self.session.model, _wanted(self.targets)
            prefix = extract.make_prefix(model, self.tokens, lot.rows[0], lot.shared, sites)
            self._held = (which, prefix)
        return self._held[1]

    def _begun(self, t: ActivationTarget) -> Mapping[str, Any] | None:
        """Facts of a part of this target that an earlier run on this kind of machine began."""
        with contextlib.suppress(Damaged, FileNotFoundError):
            header = store.read_header(store.part_path(t.path))
            if header["key"] == t.key and self.session.facts().items() <= header["facts"].items():
                return header["facts"]
        return None

    def _self_check(self, budget: int) -> None:
        session, wanted = self.session, _wanted(self.targets)
        n = max(range(len(self.sharing.groups)), key=lambda k: len(self.sharing.groups[k].rows))
        group = self.sharing.groups[n]
        prefix = self._prefix(together.Lot(n, group.length, group.rows.tolist()))
        worst = extract.self_check(
            session.model, self.tokens, self.reductions, wanted, budget, session.name, group.rows,
            self.carried, prefix,
        )  # fmt: skip
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

    def _fill(self, budget: int, targets: Sequence[ActivationTarget]) -> None:
        """Run every batch that some part still lacks; write to each part what it lacks."""
        plan = together.lots(self.session.model, self.tokens.lengths, self.sharing.groups, budget)
        facts = {
            **self.session.facts(),
            "budget": budget,
            "batch_plan": plan_digest([[lot.shared, *lot.rows] for lot in plan]),
            "shared": self.sharing.facts(self.tokens.lengths),
            **provenance(self.targets[0].args.place),
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
            n_tokens = {u: int(self.tokens.lengths[plan[u].rows].sum()) for u in todo}
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
                self.progress.advance(called(self.session.name, self.name), n_tokens[u], total)
            for t in live:
                self.out.done(t, parts[t.path].finish())

    def _norms(
        self, plan: Sequence[together.Lot], budget: int, targets: Sequence[ActivationTarget]
    ) -> dict[str, Any]:
        """Norms by position for each target: those of its part that was begun, else measured."""
        found = {}
        for t in targets:
            begun = self._begun(t)
            if begun and begun.get("budget") == budget:
                found[t.path] = begun.get("norms")
        left = [t for t in targets if found.get(t.path) is None]
        sites = dict.fromkeys(t.args.site for t in left)
        measured = {}
        if sites:
            lot = plan[len(plan) // 2]
            prefix = self._prefix(lot)
            measured = norms.measure(self.session.model, self.tokens, lot.rows, sites, prefix)
        return found | {t.path: measured[t.args.site] for t in left}

    def _part(
        self, t: ActivationTarget, plan: Sequence[together.Lot], facts: Mapping[str, Any]
    ) -> store.Part:
        site, reduction = t.args.site, self.reductions[position_of(t)]
        dtype = "float32" if reduction.kind == "mean" else self.session.settings["dtype"]
        return artefact.begin(
            t.path,
            t.record,
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
        self,
        lot: together.Lot,
        targets: Sequence[ActivationTarget],
        parts: Mapping[str, store.Part],
    ) -> list[ActivationTarget]:
        """One forward pass; returns the targets whose values are not finite."""
        if not targets:
            return []
        read = [(c, i) for c in lot.rows for i in self.carried[c]]
        carriers, rows = ([r[k] for r in read] for k in (0, 1))
        values = extract.forward(
            self.session.model, self.tokens, rows, self.reductions, _wanted(targets),
            self._prefix(lot), carriers,
        )  # fmt: skip
        bad = []
        for t in targets:
            reduction = self.reductions[position_of(t)]
            value = values[t.args.site, position_of(t)]
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
        self, value: torch.Tensor, reduction: Reduction, rows: Sequence[int], t: ActivationTarget
    ) -> BadInput:
        """The error for a non-finite activation, naming the first such row and the site."""
        k = int((~torch.isfinite(value).all(dim=1)).nonzero()[0, 0])
        if reduction.kind == "tokens":
            assert reduction.keep is not None
            ends = np.cumsum([reduction.keep[self.tokens.row(i)].sum() for i in rows])
            k = int(np.searchsorted(ends, k, side="right"))
        half = t.spec.dtype == "float16"
        hint = " (float16 overflows above 65504; bfloat16 does not)" if half else ""
        return BadInput(
            f"{self.session.name} on {self.name}: row {self.ids[rows[k]]!r} has non-finite "
            f"activations at {t.args.site}, position {t.args.position}{hint}"
        )


def _wanted(targets: Sequence[ActivationTarget]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = defaultdict(list)
    for t in targets:
        wanted[t.args.site].append(position_of(t))
    return wanted
