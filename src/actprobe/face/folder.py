"""A probe as a folder: `probe.safetensors`, `probe.json`, a README, and the scores of its rows.

Nothing in it is code. probe.json names the SHA-256 of every tensor; a folder that holds others is
refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import actprobe
from actprobe.base.errors import ActprobeError, BadInput, bad_file
from actprobe.face import card as cards
from actprobe.face.probe import Probe
from actprobe.files.safetensors import header_of
from actprobe.probes import keep

if TYPE_CHECKING:
    import pandas as pd

MODEL, CARD, SCORES, README = "probe.safetensors", "probe.json", "scores.csv", "README.md"
_LARGEST = 64 << 20  # bytes of a probe.json


def save(
    probe: Probe, folder: str | Path, licence: str | None = None, scores: bool = False
) -> Path:
    """Write a probe to a folder, which is made; returns it.

    licence: as the hub calls it, e.g. "mit"; scores: also the score of every row of the fit, by id.
    Raises BadInput for a probe whose model holds numbers that are not finite, ActprobeError for a folder
    that holds other things.
    """
    to = Path(folder)
    others = {p.name for p in to.iterdir()} - {MODEL, CARD, SCORES, README} if to.is_dir() else ()
    if others:
        raise ActprobeError(f"{to} holds other files ({sorted(others)[0]}, …); name another folder")
    content = keep.write(probe.scorer.model, probe.scorer.about)
    card = probe.card.plain() | ({"licence": licence} if licence else {})
    told = {
        "format": cards.FORMAT,
        "actprobe": actprobe.__version__,
        "sha256": hashlib.sha256(content).hexdigest(),
        "tensors": _digests(content),
        "probe": card,
    }
    to.mkdir(parents=True, exist_ok=True)
    _write(to / MODEL, content)
    _write(to / CARD, (json.dumps(told, indent=1, ensure_ascii=False, sort_keys=True)).encode())
    readme = cards.readme(cards.of_json(told, CARD), actprobe.__version__)
    _write(to / README, readme.encode())
    if scores:
        from actprobe.results import csvs

        csvs.write(probe.scores, to / SCORES)
    return to


def _write(path: Path, content: bytes) -> None:
    """Replace a file whole."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)


def _digests(content: bytes) -> dict[str, str]:
    """SHA-256 of each tensor's dtype, shape and bytes."""
    tensors = header_of(io.BytesIO(content), len(content)).tensors
    found = {}
    for name, t in sorted(tensors.items()):
        digest = hashlib.sha256(f"{t.dtype}{list(t.shape)}".encode())
        digest.update(content[t.start : t.stop])
        found[name] = digest.hexdigest()
    return found


def load_probe(
    source: str | Path,
    model: str | Mapping[str, Any] | None = None,
    override: str | None = None,
) -> Probe:
    """The probe in a folder, or in `hub:ORG/NAME@COMMIT` (or `hub:ORG/NAME/FOLDER@COMMIT`).

    model: where its model is here, if not where it was: a folder or hub:ORG/NAME, or an entry of
    `models`. Raises BadInput for a folder with a missing or altered tensor, naming it by its digest;
    override: why altered ones may be used.
    """
    folder = _fetched(str(source)) if str(source).startswith("hub:") else Path(source)
    told = _json(folder / CARD)
    card = cards.of_json(told, str(folder / CARD))
    try:
        content = (folder / MODEL).read_bytes()
    except OSError as e:
        raise bad_file(folder / MODEL, e, "the tensors of the probe: ") from None
    changed = _changed(told, content, str(folder / MODEL))
    if changed and not override:
        raise BadInput(changed[0])
    card = card.with_overrides([f"{c} ({override})" for c in changed])
    if model is not None:
        entry = dict(model) if isinstance(model, Mapping) else {"source": model}
        settings = {**card.origin.settings, **entry}
        card = cards.replace(card, origin=cards.replace(card.origin, settings=settings))
    return Probe(keep.read(content), card, _scores(folder / SCORES))


def _changed(told: Mapping[str, Any], content: bytes, where: str) -> list[str]:
    """What is not as probe.json says."""
    expected = told.get("tensors")
    if not isinstance(expected, Mapping):
        raise BadInput(f"{where}: {CARD} names no tensors")
    if hashlib.sha256(content).hexdigest() == told.get("sha256"):
        return []
    found = _digests(content)
    for name in sorted({*expected, *found}):
        if name not in found:
            return [f"{where}: the tensor {name!r} is missing; expected {expected[name][:16]}…"]
        if found[name] != expected.get(name):
            wanted = str(expected.get(name, "none of this name"))[:16]
            return [f"{where}: the tensor {name!r} was altered: {found[name][:16]}…, not {wanted}…"]
    return [f"{where}: its metadata were altered: {CARD} names another SHA-256"]


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise BadInput(f"{path}: too large to describe a probe")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise bad_file(path, e, "expected the card of a probe: ") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected an object")
    return content


def _scores(path: Path) -> pd.DataFrame | None:
    from actprobe.results import csvs

    return csvs.read(path, ("id", "split", "label")) if path.is_file() else None


def _fetched(source: str) -> Path:
    """The folder of a probe of the hub, fetched and checked."""
    from actprobe.exchange import publishing

    return publishing.fetched(source, (MODEL, CARD, README, SCORES))
