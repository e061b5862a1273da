"""Probes that other tools have made, as probes that can be evaluated, attached and saved here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.special import expit

from actprobe import config as configuration
from actprobe.base.errors import ActprobeError
from actprobe.exchange import probes_in
from actprobe.face.card import Card
from actprobe.face.origin import Origin
from actprobe.face.probe import Probe
from actprobe.models import grammar
from actprobe.probes.keep import Scorer
from actprobe.probes.kinds import BINARY


def import_probe(
    path: str | Path,
    position: str | None = None,
    site: str | None = None,
    model: Mapping[str, Any] | Origin | None = None,
    classes: Sequence[str] = (),
    name: str = "",
) -> Probe:
    """The probe in a file of another tool; see `exchange.probes_in` for the formats.

    position: at which it reads, as no format says it (`mean`, `last`, …; `tokens` for attention); site:
    where the file does not name it; model: which model it reads, the origin of other numbers
    (`run.activations(…).origin`) or an entry of `models` (with `source`, and settings of the tokens);
    without it only activations can be scored. classes: names, the one that large scores speak of last.

    Raises BadInput for a file that holds no probe, ActprobeError for a place that neither tells.

    >>> probe = actprobe.import_probe("probe.pt", position="mean")
    >>> probe.score(run.activations("chats", "llama/resid_post.12.mean"))
    """
    found = probes_in.read(path)
    site = found.site or site or (model.site if isinstance(model, Origin) else "")
    if found.reads == "tokens":
        position = position or "tokens"
    position = position or (model.position if isinstance(model, Origin) else None)
    if not site or not position:
        lacks = " and ".join(n for n, v in (("site", site), ("position", position)) if not v)
        raise ActprobeError(f"{path}: it does not say its {lacks}; give {lacks} to import_probe")
    n = len(found.kept.arrays["coef"]) if found.kind != BINARY else 2
    names = list(classes) or ["0", "1"][:n] if n == 2 else list(classes) or list(map(str, range(n)))
    if len(names) != n:
        raise ActprobeError(f"{path}: {len(names)} names for {n} classes")
    about = {
        "kind": found.kind, "classes": names, "reads": found.reads, "family": found.form,
        "params": {}, "width": found.width,
    }  # fmt: skip
    threshold = None
    if found.kind == BINARY:
        value = float(expit(found.threshold))
        threshold = {"value": value, "rule": f"of the {found.form} file", "rows": ""}
    fit = {"dataset": str(found.words.get("train_dataset", name or Path(path).stem))}
    origin = _origin(found, site, position, model)
    card = Card(origin, {**fit, "method": found.form, "params": dict(found.words)}, {}, threshold)
    return Probe(Scorer(found.kept, about), card)


def _origin(
    found: probes_in.Foreign, site: str, position: str, model: Mapping[str, Any] | Origin | None
) -> Origin:
    meaning = grammar.position_spec(position, {}, "import_probe")
    as_read: dict[str, Any] = {"site": site, "position": meaning}
    if isinstance(model, Origin):
        return Origin(
            f"{model.model}/{site}.{position}", found.reads, model.model, site, position,
            {**model.as_read, **as_read}, model.settings, model.wheels,
        )  # fmt: skip
    if model is None:
        return Origin("", found.reads, "", site, position, as_read)
    name = "model"
    resolved = configuration.resolve(
        {"experiment": "probe", "datasets": [], "models": {name: dict(model)}}
    )
    settings = resolved["models"][name]
    return Origin(f"{name}/{site}.{position}", found.reads, name, site, position, as_read, settings)
