"""The activations stage: one model, loaded once, over every pending dataset x site x position."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from actprobe import texts
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.models import open_files, reuse
from actprobe.models.dataset import Dataset, called
from actprobe.models.prepared import Prepared
from actprobe.models.progress import Progress
from actprobe.models.records import ActivationTarget
from actprobe.models.session import Models, Session
from actprobe.models.sources import require_unchanged

log = logging.getLogger(__name__)

_HELD = 1 << 28  # bytes of tokens kept from before the weights are loaded; the rest is made again


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make all targets of a batch. Weights are loaded when the first dataset needs them, and once.

    A dataset that cannot be used, or a row with non-finite activations, is reported to the
    outcome; the other targets go on.
    """
    torch.set_num_threads(threads)
    open_files.raise_limit()
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(Outcome(batch, config["on_bad_dataset"], store.write_bad))
        todo: dict[tuple[str, str], list[ActivationTarget]] = defaultdict(list)
        for t in out.todo():
            todo[t.args.model, t.item].append(t)
        costs = {called(*k): sum(t.cost for t in ts) for k, ts in todo.items()}
        progress = Progress(costs, batch.loader)
        models: Models | None = None
        ready: dict[str, list[Prepared]] = defaultdict(list)
        held = 0
        for (name, _), targets in todo.items():
            with out.guard(*targets):
                rows = texts.load(targets[0].args.texts)  # needs no model
                if models is None:
                    pending = [t for ts in todo.values() for t in ts]
                    models = stack.enter_context(Models(config["models"], pending))
                found = models.described(name)
                if not ready[name]:
                    _require_unchanged(config, targets[0])  # the tokenizer, which was just read
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
                        _require_unchanged(config, p.targets[0])  # what was just loaded
                    Dataset(session, p, group, out, progress).make()
            p.let_go()
            progress.finished(called(name, p.name))
        if session and session.used and not session.checked:
            log.warning(
                "%s: no self-check: no two rows that fit into a batch, or none with finite values",
                name,
            )


def _require_unchanged(config: Mapping[str, Any], t: ActivationTarget) -> None:
    require_unchanged(config, t.args.model, t.spec.model, t.args.place)


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
