"""Probes that watch a transformers model while it runs: a score per token, as tokens come.

A hook at each site multiplies the activations of the new tokens with the weights of all probes there;
what a probe makes of the tokens so far is a state that does not grow (`streams`). Nothing waits for the
device until somebody asks for scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from actprobe.base.errors import ActprobeError
from actprobe.face import inputs, places
from actprobe.face.counting import Counter
from actprobe.face.origin import require_none
from actprobe.face.site import Site, stream_of
from actprobe.probes.keep import scorers

if TYPE_CHECKING:
    from actprobe.face.probe import Probe

Vector = NDArray[np.float64]


def attach(
    probes: Sequence[Probe],
    model: Any,
    tokenizer: Any,
    override: str | None = None,
    by: str | None = None,
    history: bool = True,
    **how: Any,
) -> Watch:
    """Watch a transformers model with probes of its activations; use it in a `with` block.

    by: what is made of the scores of single tokens: `last`, `mean`, `max`, or `ema` (how: alpha, start,
    largest); None is what each probe's own position makes of activations (last, first, token.K, mean,
    max, or the attention of a probe that reads tokens). history: keep the score of every token, not the
    last alone. Generation is greedy or sampled; beams change places, which a hook does not see.

    Raises BadInput for a model that is not the one of the probes (both are named; override: why it may
    be used all the same, which is recorded in `watch.overridden`), ActprobeError for a probe whose
    position or model cannot be streamed.

    >>> with probe.attach(model, tokenizer) as watch:
    ...     model.generate(**watch.inputs(["Is this spam?"]), max_new_tokens=20)
    >>> watch.table()        # row, token, generated, score
    """
    if not probes:
        raise ActprobeError("no probes to attach")
    differs = [d for p in probes for d in places.which(p.origin, model, tokenizer)]
    found = require_none(
        list(dict.fromkeys(differs)), override, "this is not the model that the probe was fitted on"
    )
    for probe in probes:
        probe._record(found)
    return Watch(probes, model, tokenizer, found, by, how, history)


@dataclass
class _Step:
    """One forward pass: token ids and which are tokens of a row [b, t], and the scores of each probe."""

    ids: torch.Tensor
    valid: torch.Tensor
    scores: list[torch.Tensor]


class Watch:
    """Probes on a running model; see `attach`. overridden: what was, and why."""

    def __init__(
        self,
        probes: Sequence[Probe],
        model: Any,
        tokenizer: Any,
        overridden: list[str],
        by: str | None,
        how: Mapping[str, Any],
        history: bool,
    ) -> None:
        self.probes, self.model, self.tokenizer = list(probes), model, tokenizer
        self.overridden, self._history = overridden, history
        self._streams = [stream_of(p, by, how) for p in probes]
        self._counter = Counter(model, tokenizer, [s.counting for s in self._streams])
        self._sites: list[Site] = []
        for name in dict.fromkeys(p.origin.site for p in probes):
            own = [i for i, p in enumerate(probes) if p.origin.site == name]
            point, form = places.point_of(model, name, probes[own[0]].origin.settings)
            self._sites.append(Site(name, point, form, own, [self._streams[i] for i in own]))
        self._steps: list[_Step] = []
        self._prompt: int = 0
        self._handles: list[Any] = []

    def __enter__(self) -> Watch:
        outer = self.model.register_forward_pre_hook(self._begin, with_kwargs=True)
        self._handles = [outer, *(s.hook(self._counter, self._seen) for s in self._sites)]
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def inputs(self, texts: Sequence[Any], prompt: bool | None = None) -> dict[str, torch.Tensor]:
        """Texts or chats as input of the model, read as the rows of the first probe were (template, BOS)
        and padded on the left, so that `generate` goes on after each of them.

        What of them is template or special is remembered for the pass that follows, and left out where
        the probe's position leaves it out. prompt: whether chats end with what begins an answer.
        """
        given, keep = inputs.padded(self.probes[0], self.model, self.tokenizer, texts, prompt)
        self._counter.expect(given["input_ids"], keep)
        return given

    def _begin(self, module: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Before each pass of the whole model: which tokens are new, and which count."""
        if self._counter.begin(args, kwargs):
            for stream in self._streams:
                stream.restart()
            self._steps, self._prompt = [], self._counter.shape[1]
        if not self._history:
            self._steps = []
        none = [torch.empty(0)] * len(self.probes)
        self._steps.append(_Step(self._counter.ids, self._counter.valid, none))

    def _seen(self, site: Site, found: list[torch.Tensor]) -> None:
        for i, scores in zip(site.own, found, strict=True):
            self._steps[-1].scores[i] = scores

    def _number(self, probe: int | Probe) -> int:
        return probe if isinstance(probe, int) else self.probes.index(probe)

    def _require_steps(self) -> list[_Step]:
        done = [s for s in self._steps if s.scores[0].numel()]
        if not done:
            raise ActprobeError("the model has not run yet: call it inside the `with` block")
        return done

    def now(self, probe: int | Probe = 0) -> Vector:
        """The score of each row so far, [rows], of several classes [rows, classes]; NaN of a row none of
        whose tokens counts."""
        i = self._number(probe)
        last = self._require_steps()[-1].scores[i][:, -1]
        return _scores(self.probes[i], last)

    def scores(self, probe: int | Probe = 0) -> list[Vector]:
        """For each row the score after each of its tokens, prompt and answer, padding left out. The last
        token that was generated did not go through the model, and has none."""
        i = self._number(probe)
        if not self._history:
            raise ActprobeError("scores of single tokens were not kept: attach with history=True")
        steps = self._require_steps()
        whole = torch.cat([s.scores[i] for s in steps], dim=1)
        valid = torch.cat([s.valid for s in steps], dim=1).cpu().numpy()
        found = _scores(self.probes[i], whole)
        return [found[row][valid[row]] for row in range(len(valid))]

    def table(self, probe: int | Probe = 0) -> pd.DataFrame:
        """A row for each token: row, token, id, generated (False in the prompt), and score (of several
        classes one column each)."""
        scores, steps = self.scores(probe), self._require_steps()
        ids = torch.cat([s.ids for s in steps], dim=1).cpu().numpy()
        valid = torch.cat([s.valid for s in steps], dim=1).cpu().numpy()
        generated = np.arange(ids.shape[1]) >= self._prompt
        tables = []
        for row, said in enumerate(scores):
            own = ids[row][valid[row]]
            words = self.tokenizer.batch_decode(own[:, None].tolist())
            table = pd.DataFrame({"row": row, "token": words, "id": own})
            table["generated"] = generated[valid[row]]
            classes = self.probes[self._number(probe)].classes_
            many = said.ndim == 2
            columns = {f"score_{c}": said[:, k] for k, c in enumerate(classes)} if many else {}
            tables.append(table.assign(**(columns or {"score": said})))
        return pd.concat(tables, ignore_index=True)


def _scores(probe: Probe, decisions: torch.Tensor) -> Vector:
    """Decisions [..., columns] as scores."""
    found = decisions.double().cpu().numpy()
    if found.shape[-1] == 1:
        return scorers.linked(found[..., 0], probe.scorer.model.link)
    flat = scorers.linked(found.reshape(-1, found.shape[-1]), probe.scorer.model.link)
    return flat.reshape(found.shape)
