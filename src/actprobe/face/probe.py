"""A probe: a fitted model with what is known of it, to look at, to apply and to pass on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.config import Config
from actprobe.face import card as cards
from actprobe.face.card import Card
from actprobe.face.found import Found
from actprobe.face.origin import OF_MODELS, Origin, require_same
from actprobe.probes.keep import Scorer
from actprobe.probes.kinds import BINARY, CONTINUOUS

if TYPE_CHECKING:
    from actprobe.face.reader import Reader
    from actprobe.face.watch import Watch

Vector = NDArray[np.float64]


class Probe:
    """A fitted probe.

    scorer: its model; card: what is known of it; scores: id, split, label and score of each row of the
    fit, where they are known; config: of the run that it comes from, if any.

    >>> probe = actprobe.load_probe("folder")
    >>> probe.predict(X)                     # X float [n, d], activations at the probe's site
    array(['spam', 'ham'], dtype=object)
    """

    def __init__(
        self,
        scorer: Scorer,
        card: Card,
        scores: pd.DataFrame | None = None,
        config: Config | None = None,
        encode: Any = None,
    ) -> None:
        self.scorer, self.card = scorer, card
        self._scores, self._config, self._encode = scores, config, encode
        self._readers: dict[str | None, Reader] = {}

    @property
    def origin(self) -> Origin:
        """Where the numbers come from that it reads."""
        return self.card.origin

    @property
    def name(self) -> str:
        """Dataset, source and method."""
        return cards.name_of(self.card)

    @property
    def kind(self) -> str:
        """Of the label: binary, multiclass or continuous."""
        return self.scorer.kind

    @property
    def classes_(self) -> NDArray[Any]:
        """Names of the classes by number; of two the second is the one that scores speak of."""
        return np.array(self.scorer.classes, object)

    @property
    def coef_(self) -> Vector:
        """Weights of a linear probe in the units of its source: [d], of several classes [classes, d].

        Those of a k-sparse probe are 0 but for its latents. Raises ActprobeError for other models.
        """
        coef = self._linear()["coef"]
        steps = self.scorer.model.before
        if not steps:
            return coef
        chosen = next((s.latents for s in steps if hasattr(s, "latents")), None)
        if chosen is None or len(steps) > 1:
            raise ActprobeError(f"{self.name}: {self._form} is not linear in what it reads")
        wide = np.zeros((*coef.shape[:-1], int(self.scorer.about["width"])))
        wide[..., chosen] = coef
        return wide

    @property
    def intercept_(self) -> Any:
        """Of a linear probe: a float, of several classes [classes]."""
        found = self._linear()["intercept"]
        return float(found) if found.ndim == 0 else found

    @property
    def threshold(self) -> float | None:
        """The score above which a row is of the second class; None of several classes and of values."""
        return None if self.card.threshold is None else float(self.card.threshold["value"])

    @property
    def scores(self) -> pd.DataFrame:
        """id, split (train, validation, test), label and score of each row of the fit; of several
        classes a column `score_CLASS` each. A probe from a folder has them where they were saved."""
        if self._scores is None:
            raise ActprobeError(
                f"{self.name}: the scores of its rows are not in the folder; read them from the run: "
                'actprobe.load("config.yaml").probe(…)'
            )
        return self._scores

    def decision_function(self, X: Any, override: str | None = None) -> Vector:
        """What the model says before it becomes a score: X·coef_ + intercept_ of a linear one; [n], of
        several classes [n, classes].

        X: float [n, d] (or CSR, or rows of tokens for a probe that reads these), or what a run gives
        (`run.activations`), whose origin is then compared. Raises BadInput for another width, NaN or
        another origin; override: why that may be used all the same.
        """
        return self.scorer.decisions(self._checked(X, override))

    def score(self, X: Any, override: str | None = None) -> Vector:
        """Scores as in the tables: of two classes in (0, 1) [n], of several [n, classes], of values the
        prediction [n]. X, override: as of `decision_function`."""
        return self.scorer.scores(self._checked(X, override))

    def predict(self, X: Any, override: str | None = None) -> NDArray[Any]:
        """Names of classes, or values, [n]. X, override: as of `decision_function`."""
        return self.labels(self.score(X, override))

    def labels(self, scores: Vector) -> NDArray[Any]:
        """What scores say: class 1 above the threshold; of several classes the largest; values."""
        if self.kind == CONTINUOUS:
            return scores
        if self.kind == BINARY:
            assert self.threshold is not None
            return self.classes_[(scores > self.threshold).astype(int)]
        return self.classes_[scores.argmax(axis=1)]

    def _checked(self, X: Any, override: str | None) -> Any:
        from actprobe.face import applied

        if isinstance(X, Found):
            self._record(require_same(self.origin, X.origin, override))
            X = applied.pooled(self, X.rows())
        if hasattr(X, "tocsr"):
            X = X.toarray()
        if isinstance(X, (list, np.ndarray)) and self.origin.reads not in ("texts", "features"):
            X = np.asarray(X)
            if X.dtype.kind not in "fiu":
                raise BadInput(f"{self.name}: rows of {X.dtype}, expected numbers")
            if X.dtype != np.float32:
                X = X.astype(np.float64)
        return X

    def _record(self, overridden: Sequence[str]) -> None:
        if overridden:
            self.card = self.card.with_overrides(list(overridden))

    def _linear(self) -> Mapping[str, Vector]:
        if self.scorer.model.scorer != "linear":
            raise ActprobeError(
                f"{self.name}: {self._form} has no weights of its inputs; `probe.score(X)` applies it"
            )
        return self.scorer.model.arrays

    @property
    def _form(self) -> str:
        return str(self.scorer.about.get("family") or self.scorer.model.scorer)

    def reader(self, override: str | None = None) -> Reader:
        """The model that reads new rows as those of the fit were read; loaded once."""
        from actprobe.face.reader import Reader

        if self.origin.reads not in OF_MODELS:
            raise ActprobeError(f"{self.name} reads {self.origin.reads}, not a model")
        if override not in self._readers:
            self._readers[override] = Reader(self.origin, self._config, override)
        return self._readers[override]

    def load_model(self, override: str | None = None) -> tuple[Any, Any]:
        """The probe's model with its head, as transformers has it, and its tokenizer."""
        return self.reader(override).causal()

    def score_texts(
        self,
        texts: Sequence[Any],
        tokens: bool = False,
        cut: bool = False,
        override: str | None = None,
    ) -> Any:
        """Scores of new texts or chats, read as the probe's rows were: model, template, truncation,
        position.

        texts: strings, or chats as lists of messages {role, content}. tokens: a table for each text
        instead, with a row for each token that the position may look at: token, start, end (characters,
        where the tokenizer tells) and score. cut: shorten texts that are too long, as a run does.
        Scores equal those of a run for the same rows to the rounding of a forward pass (a relative 1e-3
        of an activation at most in float32, usually 1e-6).
        """
        from actprobe.face import applied

        return applied.score_texts(self, texts, tokens, cut, override)

    def encoded(self, x: NDArray[np.float32]) -> Any:
        """Activations [n, d] as the latents that the probe reads."""
        if self._encode is None:
            raise ActprobeError(
                f"{self.name} reads latents of an SAE, which is not in the folder; take it from the "
                'run: actprobe.load("config.yaml").probe(…)'
            )
        return self._encode(x)

    def attach(self, model: Any, tokenizer: Any, override: str | None = None, **how: Any) -> Watch:
        """Watch a transformers model at the probe's site; see `attach`."""
        from actprobe.face.watch import attach

        return attach([self], model, tokenizer, override, **how)

    def published(self) -> Probe:
        """The same for others: without the place of a local model on this machine."""
        source = str(self.origin.settings.get("source", ""))
        if not source or source.startswith(("hub:", "wheel:")):
            return self
        settings = {**self.origin.settings, "source": Path(source).name}
        origin = replace(self.origin, settings=settings)
        return Probe(self.scorer, replace(self.card, origin=origin), self._scores)

    def save(self, folder: str | Path, licence: str | None = None, scores: bool = False) -> Path:
        """Write `probe.safetensors`, `probe.json` and a README; see `folder.save`."""
        from actprobe.face.folder import save

        return save(self, folder, licence, scores)

    def export(self, form: str, path: str | Path) -> Path:
        """Write the probe in another tool's format; see `exchange.probes_out.write`."""
        from actprobe.exchange.probes_out import write

        return write(self, form, Path(path))

    def __repr__(self) -> str:
        return f"<Probe {self.name}: {self._form}, {self.kind}>"
