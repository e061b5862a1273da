"""Config section `imports` to targets: activations that other tools cached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Record, Target, target
from actprobe.config import matching
from actprobe.imports import layouts
from actprobe.imports.layouts import Found
from actprobe.texts import TextArgs

STAGE = "imports"
VERSION = 1
_BY_LAYER = ("v1", "v2")


@dataclass(frozen=True, kw_only=True)
class ImportSpec(Record):
    """What decides the activations: the files by the digest of all that is read (None: there are
    none), their layout and array, and the key of the rows' order or of all that is in the texts."""

    provenance: str = "imported"
    layout: str
    content: str | None
    array: str | None
    site: str
    position: str
    texts: str


@dataclass(frozen=True, kw_only=True)
class ImportArgs(Record):
    """Names as of activations, and the files; pairs: those of the positive rows come first."""

    source: str
    model: str
    site: str
    position: str
    texts: str
    folder: str
    files: tuple[str, ...]
    pairs: bool


ImportTarget = Target[ImportSpec, ImportArgs]
_Texts = Target[Any, TextArgs]


def targets(
    config: Mapping[str, Any], known: Mapping[str, list[Target[Any, Any]]], memo: DigestMemo
) -> list[ImportTarget]:
    """One target per import, dataset, site and position; its artefact lies among the extracted ones
    and carries the same args (`source`, `model`, `site`, `position`).

    Raises ConfigError when a folder is not what the config says, when it has no activations of
    a dataset (unless bad datasets are skipped), and when the model was read here as well.
    """
    texts = {t.item: t for t in known.get("texts", [])}
    taken = {(t.args["source"], t.item) for t in known.get("activations", [])}
    made = []
    for name, entry in config.get("imports", {}).items():
        for t in _entry(config, name, entry, texts, memo):
            place = t.args.source, t.item
            if place in taken:
                raise ConfigError(
                    f"imports.{name}: {place[0]} of {place[1]} comes from elsewhere as well; "
                    "give the imported model another name"
                )
            taken.add(place)
            made.append(t)
    return made


def _entry(
    config: Mapping[str, Any],
    name: str,
    entry: Mapping[str, Any],
    texts: Mapping[str, _Texts],
    memo: DigestMemo,
) -> Iterator[ImportTarget]:
    where, folder = f"imports.{name}", Path(entry["folder"]).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{where}.folder: {folder} is not a folder")
    datasets = matching(entry["datasets"], texts, f"{where}.datasets", "dataset")
    if entry["layout"] in _BY_LAYER:
        if len(datasets) != 1 or entry["files"]:
            raise ConfigError(f"{where}: layout {entry['layout']} takes one dataset and no `files`")
        found = layouts.by_layer(folder, entry, datasets[0], where)
    else:
        found = layouts.by_name(folder, entry, _called(entry, datasets, texts, where), where)
    missing = sorted({f.dataset for f in found if not f.files})
    if missing and config["on_bad_dataset"] == "stop":
        raise ConfigError(
            f"{where}: no activations of {', '.join(missing)} at every site in {folder} "
            "(`on_bad_dataset: skip` leaves these out)"
        )
    for f in found:
        yield _target(config, name, entry, folder, f, texts[f.dataset], memo)


def _called(
    entry: Mapping[str, Any], datasets: list[str], texts: Mapping[str, _Texts], where: str
) -> dict[str, str]:
    """The datasets by what files call them: their names, and for layout saeprobes those that the
    package has for them."""
    called = {d: d for d in datasets}
    if entry["layout"] != "saeprobes" or entry["files"]:
        return called
    for d in datasets:
        name, _ = layouts.package_name(d, texts[d].args.provenance)
        if called.setdefault(name, d) != d:
            raise ConfigError(
                f"{where}: the package calls {d} {name!r}, and {called[name]} as well; import them "
                "one by one"
            )
    return called


def identity(folder: Path, files: tuple[str, ...], layout: str, memo: DigestMemo) -> str:
    """Digest of everything that an import reads: the files, and what describes them."""
    described = (layouts.INFO, layouts.METADATA) if layout in _BY_LAYER else ()
    return keys.spec_key({f: memo.sha256(folder / f) for f in (*files, *described)})


def _target(
    config: Mapping[str, Any],
    name: str,
    entry: Mapping[str, Any],
    folder: Path,
    found: Found,
    texts: _Texts,
    memo: DigestMemo,
) -> ImportTarget:
    layout, path = (
        entry["layout"],
        f"{entry['model']}/{found.dataset}/{found.site}.{found.position}",
    )
    spec = ImportSpec(
        layout=layout,
        content=identity(folder, found.files, layout, memo) if found.files else None,
        array=entry["array"],
        site=found.site,
        position=found.position,
        # Which row of a pair is which depends on the labels; other rows are taken in order.
        texts=texts.identity if found.pairs else texts.args.rows,
    )
    args = ImportArgs(
        source=f"{entry['model']}/{found.site}.{found.position}",
        model=entry["model"],
        site=found.site,
        position=found.position,
        texts=texts.path,
        folder=str(folder.absolute()),
        files=found.files,
        pairs=found.pairs,
    )
    size = sum((folder / f).stat().st_size for f in found.files)
    made = target(
        config["cache_dir"], STAGE, VERSION, path, spec,
        loader=name, item=found.dataset, inputs=[texts], args=args, cost=float(size or 1),
    )  # fmt: skip
    file = f"{config['cache_dir']}/activations/{path}.{keys.short(made.key)}.h5"
    return replace(made, path=file)
