"""Config sections `wheels` and `datasets` to targets. Nothing is fetched here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.cache import plan
from actprobe.cache.plan import Nothing, Target
from actprobe.texts import sources, specs
from actprobe.texts.records import HubTarget, TextArgs, TextTarget, WheelArgs, WheelTarget
from actprobe.texts.sources import Source

STAGE, PROMPTS = "texts", "prompts"
VERSION = 7  # of the table; what depends on it is keyed by its content


def wheel_targets(config: Mapping[str, Any]) -> list[WheelTarget]:
    """One raw target per entry of `wheels`; its key is the SHA-256 that the file must have."""
    made: list[WheelTarget] = []
    for name, wheel in config["wheels"].items():
        file = f"{wheel['package']}-{wheel['version']}"
        path = f"{config['cache_dir']}/wheels/{file}.{keys.short(wheel['sha256'])}.whl"
        args = WheelArgs(package=wheel["package"], version=wheel["version"])
        made.append(
            Target(
                "wheels", name, name, file, path, wheel["sha256"], Nothing(), args=args, raw=True
            )
        )
    return made


def datasets(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries of `datasets`, one dict per dataset: `names` expanded, `name` and `path` filled in.

    Raises ConfigError for a name that is no slug, and for two datasets of one name.
    """
    found: dict[str, dict[str, Any]] = {}
    for entry in config["datasets"]:
        names = list(_names(entry))
        if len(names) > 1 and "{name}" not in entry["path"]:
            raise ConfigError(
                f"datasets: {len(names)} names share the path {entry['path']}; "
                "expected {name} in it"
            )
        for name, member in names:
            _check_slug(name)
            path = entry["path"].replace("{name}", member)
            if name in found:
                raise ConfigError(
                    f"datasets: two datasets are called {name} ({found[name]['path']} and {path}); "
                    "give one of them another name"
                )
            found[name] = {**entry, "name": name, "path": path}
    return list(found.values())


def _names(entry: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for n in entry["names"] if "names" in entry else [entry["name"]]:
        yield (n, n) if isinstance(n, str) else (n["name"], n["member"])


def _check_slug(name: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        return
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".-") or "dataset"
    raise ConfigError(
        f"datasets: {name!r} cannot be a name (letters, digits, '.', '_' and '-' can); write "
        f'name: {slug}, or among `names`: {{name: {slug}, member: "{name}"}}'
    )


def targets(
    config: Mapping[str, Any],
    known: Mapping[str, list[Target[Any, Any]]],
    memo: keys.DigestMemo,
    look: bool = True,
) -> list[HubTarget | TextTarget]:
    """One target per dataset, and before them the files of the hub that they come from.

    With `look`, datasets are read that have no artefact yet: what depends on a dataset is keyed by
    its content, not by the file it came from. Then args holds `rows`, the digest of all rows in
    their order, for what reads them alone; `facts`, those of the header; and `bad`, why it cannot
    be used. A dataset whose file was not fetched yet, or that cannot be used, is known by its own
    key. Of a dataset with `generate` these are the prompts (stage `prompts`); its texts are made of
    their answers (`actprobe.models.answers`).
    """
    wheels = {t.item: t for t in known.get("wheels", [])}
    raws: dict[str, HubTarget] = {}
    found = []
    for dataset in datasets(config):
        source = sources.source(config, dataset, wheels, memo)
        raws |= {t.path: t for t in source.raws}
        found.append(_known(_target(config, dataset, source), look))
    return [*raws.values(), *found]


def _known(t: TextTarget, look: bool) -> TextTarget:
    facts = bad = None
    if look:
        from actprobe.texts.survey import survey

        facts, bad = survey(t)
    rows, content = (facts["rows"], facts["content"]) if facts else (t.key, "")
    return replace(t, args=replace(t.args, rows=rows, facts=facts, bad=bad), content=content)


def _target(config: Mapping[str, Any], dataset: Mapping[str, Any], source: Source) -> TextTarget:
    spec = specs.spec(dataset, source)
    stage = PROMPTS if spec.prompts else STAGE
    args = TextArgs(
        file=source.file,
        bytes=source.bytes,
        provenance=source.provenance,
        columns={"text": spec.text, **spec.columns},
        raws=tuple(t.path for t in source.raws),
        place=source.place,
    )
    return plan.target(
        config["cache_dir"],
        stage,
        VERSION,
        dataset["name"],
        spec,
        loader=stage,
        item=dataset["name"],
        inputs=[source.wheel] if source.wheel else source.raws,
        args=args,
        ext="parquet",
        movable=True,
    )
