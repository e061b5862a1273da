"""What a probe tells of itself: `probe.json`, and the README of a folder or of the hub."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from actprobe.base.errors import BadInput
from actprobe.face.origin import Origin

FORMAT = 1
_NUMBERS = (
    "metric", "val_score", "test_score", "ci_low", "ci_high", "test_score_unseen", "chance",
    "n_train", "n_validation", "n_test", "leak_fraction",
)  # fmt: skip
FIT = (
    "dataset", "label", "protocol", "setting", "condition", "method", "k", "seed", "columns",
    "params", "key",
)  # fmt: skip


@dataclass(frozen=True)
class Card:
    """What is known of a probe besides its model.

    fit: which fit it is (`FIT`); numbers: how well it does, with the interval of its main metric;
    threshold: {value, rule, rows}: of a score, by which rule, and how many rows said so; data: keys and
    digests of the rows that it was fitted on; overrides: what it was applied to against what it says of
    itself, and why.
    """

    origin: Origin
    fit: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    threshold: Mapping[str, Any] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    overrides: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "origin": self.origin.plain(), "overrides": list(self.overrides)}

    def with_overrides(self, found: list[str]) -> Card:
        """The same with more that was overridden."""
        return replace(self, overrides=tuple(dict.fromkeys((*self.overrides, *found))))


def of_json(content: Mapping[str, Any], where: str) -> Card:
    """The card in the content of a probe.json. Raises BadInput naming what it lacks."""
    if content.get("format") != FORMAT:
        raise BadInput(f"{where}: format {content.get('format')!r}, expected {FORMAT}")
    try:
        card = dict(content["probe"])
        card["overrides"] = tuple(card["overrides"])
        return Card(**{**card, "origin": Origin(**card["origin"])})
    except (KeyError, TypeError, ValueError) as e:
        raise BadInput(f"{where}: not what a probe says of itself: {e!r}") from None


def of_row(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`fit` and `numbers` of a row of a fit file."""
    fit = {k: row[k] for k in FIT if row.get(k) not in (None, "")}
    fit["params"] = json.loads(fit.get("params", "{}"))
    numbers = {k: row.get(k) for k in _NUMBERS}
    return fit, {k: v for k, v in numbers.items() if v is not None and not _is_nan(v)}


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def name_of(card: Card) -> str:
    """A short name: dataset, source and method."""
    said = [card.fit.get(k, "") for k in ("dataset", "method")]
    return " ".join(filter(None, [said[0], card.origin.source, said[1]])) or "probe"


def readme(card: Card, version: str) -> str:
    """The README of a folder, with the front matter that the hub reads."""
    origin, fit = card.origin, card.fit
    hub = origin.identity.get("hub")
    head = ["---", f"license: {card.licence or 'other'}", "library_name: actprobe"]
    head += ["tags: [actprobe, probe, interpretability]"]
    head += [f"base_model: {hub}"] if hub else []
    rows = {
        "model": f"{hub} at {origin.identity['revision']}" if hub else origin.model,
        "site": origin.site,
        "position": origin.position,
        "SAE": (origin.sae or {}).get("name", ""),
        "fitted on": fit.get("dataset", ""),
        "method": fit.get("method", ""),
        "protocol": fit.get("protocol", ""),
        "threshold": _threshold(card),
        "licence": card.licence or "not stated",
        "actprobe": version,
    }
    told = [f"| {k} | {v} |" for k, v in rows.items() if v]
    lines = [
        *head, "---", f"# {name_of(card)}", "",
        "A probe reads a property of a text off the activations of a model.", "",
        "| | |", "|---|---|", *told, "", *_numbers(card.numbers), "## Use", "```python",
        "import actprobe", "", 'probe = actprobe.load_probe("FOLDER")  # or hub:ORG/NAME@COMMIT',
        'probe.score_texts(["…"])', "```",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _threshold(card: Card) -> str:
    found = card.threshold
    return "" if found is None else f"{found['value']:.6g} ({found['rule']})"


def _numbers(numbers: Mapping[str, Any]) -> list[str]:
    if "test_score" not in numbers:
        return []
    low, high = numbers.get("ci_low"), numbers.get("ci_high")
    interval = f", interval {low:.3f} to {high:.3f}" if low is not None and high is not None else ""
    rows = f" on {numbers['n_test']} rows that were not fitted" if "n_test" in numbers else ""
    score = f"{numbers.get('metric', 'score')} {numbers['test_score']:.3f}"
    return ["## How well it does", f"{score}{interval}{rows}.", ""]
