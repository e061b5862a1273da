"""The texts stage: every dataset of a batch read, checked, encoded and written."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput, Unreachable
from actprobe.cache import store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch
from actprobe.texts import fetched, table
from actprobe.texts.checks import Place
from actprobe.texts.records import HubSource, TextTarget
from actprobe.texts.tabulate import tabulate
from actprobe.texts.wheels import open_member

log = logging.getLogger(__name__)


def run(batch: Batch, config: Mapping[str, Any], threads: int) -> None:
    """Make all datasets of a batch, one after the other: a few CPU seconds for 300 000 rows."""
    with Outcome(batch, config["on_bad_dataset"], table.write_bad) as out:
        out.make(batch.targets, _make)


def _make(t: TextTarget) -> Path:
    content, found = tabulate(_files(t), t.spec, t.item)
    log.info("%s %s: %s", t.stage, t.item, _summary(found))
    return store.write_table(t.path, content, t.record, found | {"provenance": t.args.provenance})


def _summary(found: Mapping[str, Any]) -> str:
    words = f"{found['n']} rows, {found['duplicates']['rows']} repeat a text"
    if sample := found.get("sample"):
        words = f"a sample of {sample['of']} rows: {words}"
    if chats := found.get("chats"):
        words += f", chats of {chats['messages']} messages"
    elif found["multiline"]:
        words += f", {found['multiline']} span lines"
    return words + ("; quotes are read as text" if found["quoting"] == "none" else "")


def described(t: TextTarget) -> dict[str, Any]:
    """The facts that the header of a target's artefact will hold. Raises BadInput."""
    return tabulate(_files(t), t.spec, t.item)[1]


def _files(t: TextTarget) -> list[tuple[str, bytes]]:
    """What messages call the files of a dataset, and their bytes."""
    source, file = t.spec.source, t.args.file
    if isinstance(source, HubSource):
        if not t.args.raws:
            place = t.args.place or {}
            why = place.get("unreachable") or place.get("refused")
            raise Unreachable(f"dataset {t.item}: {why}")
        raws = zip(source.files, t.args.raws, strict=True)
        return [(f"hub:{source.hub}/{n}", fetched.read(path)) for n, path in raws]
    if source.member is not None:
        return [_member(t, source.member)]
    try:
        data = Path(file).read_bytes()
    except OSError as e:  # it could be read for the plan
        raise ActprobeError(f"dataset {t.item}: {e.filename}: {e.strerror}") from e
    found = hashlib.sha256(data).hexdigest()
    keys.require_unchanged(found, source.sha256, f"dataset {t.item}: {file}")
    return [(file, data)]


def _member(t: TextTarget, member: str) -> tuple[str, bytes]:
    name = f"{t.args.provenance['wheel']}/{member}"
    place = Place(t.item, name)
    try:
        with place.guard("not readable in the wheel"):
            return name, open_member(t.args.file, member).read()
    except BadInput as e:
        raise place.bad(str(e).removeprefix(str(place.bad("")))) from e
