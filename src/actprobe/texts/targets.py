"""Config sections `wheels` and `datasets` to targets. Nothing is fetched here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from actprobe import keys, plan
from actprobe.config import nearest
from actprobe.errors import ConfigError
from actprobe.plan import Target
from actprobe.texts.wheels import is_member_allowed

VERSION = 3  # of the table; what depends on it is keyed by its content

_PAIR_TEMPLATE = "{text}\n\n{answer}"

FORMATS = (
    *("csv", "tsv", "json", "jsonl"),
    *("csv.zst", "tsv.zst", "json.zst", "jsonl.zst"),
    "parquet",
)


def wheel_targets(config: Mapping[str, Any]) -> list[Target]:
    """One raw target per entry of `wheels`; its key is the SHA-256 that the file must have."""
    made = []
    for name, wheel in config["wheels"].items():
        file = f"{wheel['package']}-{wheel['version']}"
        path = f"{config['cache_dir']}/wheels/{file}.{keys.short(wheel['sha256'])}.whl"
        args = {k: wheel[k] for k in ("package", "version")}
        made.append(
            Target("wheels", name, name, file, path, wheel["sha256"], {}, args=args, raw=True)
        )
    return made


def wheel_source(config: Mapping[str, Any], path: str, where: str) -> tuple[str, str] | None:
    """Wheel name and member (a file or a folder) of a `wheel:NAME/member` path, else None.

    `where` names the config entry in messages. Raises ConfigError for an unknown wheel and for a
    member that the wheel's `members` do not allow.
    """
    if not path.startswith("wheel:"):
        return None
    name, _, member = path.removeprefix("wheel:").partition("/")
    if name not in config["wheels"]:
        hint = nearest(name, config["wheels"])
        raise ConfigError(f"{where}: {path}: no wheel {name!r} in `wheels`; {hint}")
    allowed = config["wheels"][name]["members"]
    if not member or not is_member_allowed(member, allowed):
        raise ConfigError(
            f"{where}: {path}: expected wheel:{name}/MEMBER with a member that matches one of "
            f"wheels.{name}.members ({', '.join(allowed)})"
        )
    return name, member.rstrip("/")


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
    known: Mapping[str, list[Target]],
    memo: keys.DigestMemo,
    look: bool = True,
) -> list[Target]:
    """One target per dataset.

    With `look`, datasets are read that have no artefact yet: what depends on a dataset is keyed by
    its content, not by the file it came from. Then args holds `rows`, the digest of all texts in
    their order, for what reads texts alone; `facts`, those of the header; and `bad`, why it cannot
    be used. A dataset in a wheel that was not fetched yet, or that cannot be used, is known by its
    own key.
    """
    wheels = {t.item: t for t in known.get("wheels", [])}
    found = [_target(config, d, wheels, memo) for d in datasets(config)]
    return [_known(t, look) for t in found]


def _known(t: Target, look: bool) -> Target:
    facts = bad = None
    if look:
        from actprobe.texts.survey import survey

        facts, bad = survey(t)
    rows, content = (facts["rows"], facts["content"]) if facts else (t.key, "")
    return replace(t, args={**t.args, "rows": rows, "facts": facts, "bad": bad}, content=content)


def _target(
    config: Mapping[str, Any],
    dataset: Mapping[str, Any],
    wheels: Mapping[str, Target],
    memo: keys.DigestMemo,
) -> Target:
    name = dataset["name"]
    source = wheel_source(config, dataset["path"], f"dataset {name}")
    if source is None:
        path = os.path.expanduser(dataset["path"])
        content = {"sha256": _digest(name, path, memo)}
        provenance = {"file": os.path.basename(path), **content}
        inputs = []
    else:
        wheel, member = wheels[source[0]], source[1]
        path = wheel.path
        content = {"sha256": wheel.key, "member": member}
        provenance = {"wheel": wheel.name, **content}
        inputs = [wheel]
    rows = {
        "source": content,
        "format": _format(dataset),
        "text": dataset["text"],
        "id": dataset["id"],
        "keep": {c: _wanted(v) for c, v in dataset["keep"].items()},
        **_dialect(dataset),
    }
    positive = dataset["positive"]
    labels = {
        **{k: dataset[k] for k in ("label", "group", "split", "pair")},
        "positive": None if positive is None else str(positive),
    }
    if answers := dataset.get("contrastive"):
        rows["answers"] = sorted(answers.values())
        labels |= {"label": None, "pair": None, "positive": answers["positive"]}
    if template := _template(dataset):
        rows["template"] = template
    args = {
        "file": path,
        "provenance": provenance,
        "bytes": 1 if source else os.path.getsize(path),  # to balance shards; unknown in a wheel
    }
    return plan.target(
        config["cache_dir"],
        "texts",
        VERSION,
        name,
        {**rows, **labels},
        loader="texts",
        item=name,
        inputs=inputs,
        args=args,
        ext="parquet",
        movable=True,
    )


def _template(dataset: Mapping[str, Any]) -> str | None:
    """How a row's text is put together; None: the text column as it is."""
    pairs, template = bool(dataset.get("contrastive")), dataset.get("template")
    if template is None:
        return _PAIR_TEMPLATE if pairs else None
    if template.count("{text}") != 1 or template.count("{answer}") != int(pairs):
        expected = "{text} and {answer} once each" if pairs else "{text} once and no {answer}"
        raise ConfigError(
            f"dataset {dataset['name']}: template {template!r}; expected {expected} in it"
        )
    return template


def _digest(name: str, path: str, memo: keys.DigestMemo) -> str:
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        raise ConfigError(f"dataset {name}: {path} {what}; expected a file")
    try:
        return memo.sha256(path)
    except OSError as e:
        raise ConfigError(f"dataset {name}: {path} cannot be read: {e.strerror}") from e


def _format(dataset: Mapping[str, Any]) -> str:
    if dataset["format"]:
        return dataset["format"]
    for f in FORMATS:
        if dataset["path"].lower().endswith(f".{f}"):
            return f
    raise ConfigError(
        f"dataset {dataset['name']}: the end of {dataset['path']} tells no format; "
        f"set `format` to one of {', '.join(FORMATS)}"
    )


def _dialect(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that say how a csv or tsv file is written, where the config gives them."""
    given = {k: dataset[k] for k in ("separator", "quotes") if dataset.get(k) is not None}
    kind = _format(dataset).partition(".")[0]
    for key in given:
        if kind not in (("csv",) if key == "separator" else ("csv", "tsv")):
            raise ConfigError(
                f"dataset {dataset['name']}: `{key}` is for csv files, the format is {kind}; take "
                f"`{key}` out or write `format: csv`"
            )
    return given


def _wanted(values: Any) -> list[str | None]:
    """The cell texts that a `keep` entry accepts (None: an empty one), sorted."""
    given = values if isinstance(values, list) else [values]
    texts = {None if v is None or v == "" else str(v) for v in given}
    return sorted(texts, key=lambda v: (v is not None, v or ""))
