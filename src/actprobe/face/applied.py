"""A probe on new texts and chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.face.reader import Read, Reader, rows_of
from actprobe.probes.keep import scorers
from actprobe.texts.chats import Chat

if TYPE_CHECKING:
    from actprobe.face.probe import Probe

_BY_TOKEN = ("linear", "layers", "attention")


def score_texts(
    probe: Probe,
    given: Sequence[Any],
    tokens: bool = False,
    cut: bool = False,
    override: str | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """See `Probe.score_texts`. names: of the rows in messages; their numbers by default."""
    rows = rows_of(given)
    names = list(map(str, range(len(rows)))) if names is None else names
    if probe.origin.reads == "texts":
        if tokens:
            raise ActprobeError(f"{probe.name} reads whole texts: there are no scores of tokens")
        texts = [r.text if isinstance(r, Chat) else r for r in rows]
        if empty := [n for n, text in zip(names, texts, strict=True) if not text.strip()]:
            raise BadInput(f"row {empty[0]!r} is empty ({len(empty)} such rows)")
        return probe.scorer.scores(np.array(texts, object))
    reader = probe.reader(override)
    if tokens:
        return _by_token(probe, reader, rows, names, cut)
    found = reader.read(rows, names, cut=cut)
    probe._record(reader.overridden)
    return probe.scorer.scores(_as_read(probe, found))


def _as_read(probe: Probe, found: Read) -> Any:
    """Activations as the probe reads them."""
    if probe.origin.reads in ("latents", "token_latents"):
        return probe.encoded(found.x)
    of_tokens = probe.origin.as_read["position"] == "tokens"
    return pooled(probe, found.ragged if of_tokens else found.x)


def pooled(probe: Probe, rows: Any) -> Any:
    """Rows of tokens as their means, where a probe reads these; float64 [n, d]."""
    if probe.origin.reads != "pooled":
        return rows
    if not hasattr(rows, "offsets"):
        return np.asarray(rows, np.float64)
    totals = np.add.reduceat(rows.x.astype(np.float64), rows.offsets[:-1])
    return totals / rows.lengths[:, None]


def _by_token(
    probe: Probe, reader: Reader, rows: Sequence[Any], names: Sequence[str], cut: bool
) -> list[pd.DataFrame]:
    model = probe.scorer.model
    if model.scorer not in _BY_TOKEN or probe.origin.reads in ("latents", "token_latents"):
        raise ActprobeError(
            f"{probe.name}: {model.scorer} of {probe.origin.reads} has no scores of tokens; expected "
            f"one of {', '.join(_BY_TOKEN)} on activations"
        )
    found = reader.read(rows, names, position="tokens", cut=cut)
    probe._record(reader.overridden)
    columns = token_scores(probe, found.x)
    given, ids, chars = found.tokens, found.tokens.ids[found.keep], found.tokens.chars
    kept = None if chars is None else chars[found.keep]
    shown = _words(reader, ids)
    assert found.offsets is not None
    tables = []
    for i in range(len(given.lengths)):
        at = slice(int(found.offsets[i]), int(found.offsets[i + 1]))
        table = pd.DataFrame({"token": shown[at], "id": ids[at]})
        if kept is not None:
            table["start"], table["end"] = kept[at].T
        tables.append(table.assign(**{k: v[at] for k, v in columns.items()}))
    return tables


def token_scores(probe: Probe, x: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Scores of single tokens x [T, d]: those of a probe of one vector as if each were a row; of an
    attention probe what each token says, and `asked`, of which its weight is the softmax."""
    model = probe.scorer.model
    if model.scorer != "attention":
        scores = probe.scorer.scores(x)
        if scores.ndim == 1:
            return {"score": scores}
        return {f"score_{c}": scores[:, k] for k, c in enumerate(probe.classes_)}
    wide = np.asarray(x, np.float64)
    said = wide @ model.arrays["value"] + model.arrays["intercept"]
    score = scorers.linked(said, model.link)
    return {"score": score, "asked": wide @ model.arrays["query"]}


def _words(reader: Reader, ids: NDArray[Any]) -> list[str]:
    """Each token as text."""
    return reader.reading.tokenizer.batch_decode(ids[:, None].tolist())
