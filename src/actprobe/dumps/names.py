"""What the names of a dump's files say: their site, and which chunk of it they are.

A name counts as a site's only when all of it is understood: `…hook_resid_pre_grad.pt` holds
gradients, `…hook_resid_pre.hook_sae_acts_post.pt` SAE codes. The chunks of a site differ in the
chunk number and in nothing else.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.config.dumps import Dump
from actprobe.dumps import digests
from actprobe.dumps.lockfile import LockedFile
from actprobe.models import hooks

_KINDS = "|".join(hooks.HOOKS)
_SITE = re.compile(rf"(?<![A-Za-z0-9])(?:{hooks.HOOK}|(?:{_KINDS})\.\d+)(?![A-Za-z0-9])")
# Words that may stand beside a site. Of a folder around it only those that say something else count.
_WORDS = "chunk|part|shard|batch|file|of|hook|acts?|activations?|data|layer|tensors?"
_OF_CODES = "saes?|codes?|latents?|features?|post|encoded"
_ELSE = re.compile(
    r"(?<![a-z])(grad(ient)?s?|saes?|codes?|latents?|diffs?|deltas?|errors?|masks?|weights?|"
    r"recons?(truct\w*)?|tangents?|attributions?|scores?|patterns?)(?![a-z])",
    re.IGNORECASE,
)


def site_of_name(dump: str, path: str, codes: bool = False) -> str:
    """The site that the name of a file says.

    codes: the files hold SAE codes of the site. Raises ConfigError for a name that tells none, two,
    or one with anything unexplained beside it.
    """
    found = list(_SITE.finditer(path))
    sites = {s for m in found if (s := _site(m[0]))}
    if len(sites) != 1:
        what = f"several sites ({', '.join(sorted(sites))})" if sites else "no site"
        raise ConfigError(
            f"dumps.{dump}: the name {path!r} tells {what} (as blocks--2--hook_resid_pre.pt does); "
            + _remedy(dump, path, sites)
        )
    if left := _unexplained(path, found, codes):
        raise ConfigError(
            f"dumps.{dump}: the name {path!r} says {next(iter(sites))} and {left!r}, which may be "
            "something else than its " + ("codes; " if codes else "activations; ")
            + _remedy(dump, path, sites)
        )  # fmt: skip
    return sites.pop()


def _remedy(dump: str, path: str, sites: Iterable[str]) -> str:
    site = next(iter(sorted(sites)), "resid_post.3")
    name = PurePosixPath(path).name
    return (
        f'if that is what it holds, say so in dumps.{dump}.sites as `{site}: ["*{name}"]` (with '
        f"every other site of the dump), or leave the file out in dumps.{dump}.files"
    )


def _site(said: str) -> str:
    """The site of a match: a hook name, or a site as it is."""
    if (site := hooks.site_of(said)) is not None:
        return site
    kind, _, layer = said.rpartition(".")
    return f"{kind}.{int(layer)}"


def _unexplained(path: str, found: Sequence[re.Match[str]], codes: bool) -> str:
    """The text beside the sites that is not understood, "" for none."""
    words = f"{_WORDS}|{_OF_CODES}" if codes else _WORDS
    known = re.compile(rf"(?:[-_. 0-9]|(?<![A-Za-z])(?:{words})(?![A-Za-z]))*", re.IGNORECASE)
    folder_end = path.rfind("/", 0, found[0].start()) + 1
    if not codes and (other := _ELSE.search(path[:folder_end])):
        return other[0]
    suffix = PurePosixPath(path).suffix
    stem = path.removesuffix(suffix) if suffix in digests.EXTENSIONS else path
    at = folder_end
    for m in [*found, None]:
        text = stem[at : m.start() if m else len(stem)]
        for part in text.split("/"):
            if not known.fullmatch(part):
                return part.strip("-_. ") or part
        at = m.end() if m else at
    return ""


def by_site(dump: str, entry: Dump, files: Sequence[LockedFile]) -> dict[str, list[LockedFile]]:
    """The chunks of each site, in order: those that match `sites`, pattern by pattern, or those
    whose names say it."""
    asked = entry.source.artifacts or ()
    found: dict[str, list[LockedFile]] = {}
    if not entry.sites:
        for f in files:
            found.setdefault(site_of_name(dump, f.path, entry.content == "latents"), []).append(f)
        return {site: in_order(dump, site, of, asked) for site, of in sorted(found.items())}
    for site, patterns in sorted(entry.sites.items()):
        chosen: list[LockedFile] = []
        for p in patterns:
            of = [f for f in files if f not in chosen and fnmatch.fnmatchcase(f.path, p)]
            if not of and not any(fnmatch.fnmatchcase(f.path, p) for f in chosen):
                raise ConfigError(f"dumps.{dump}.sites.{site}: no file matches {p!r}")
            chosen += in_order(dump, site, of, asked)
        found[site] = chosen
    return found


def in_order(
    dump: str, site: str, files: Iterable[LockedFile], asked: Sequence[str] = ()
) -> list[LockedFile]:
    """The chunks of a site by the number in their names ("chunk_2" before "chunk_10").

    When several artifacts hold a file of the same name, artifact after artifact: as `asked` for in
    the config, otherwise by the numbers in their names. Raises ConfigError when one file occurs
    twice, when the names differ in more than one number, and when that number repeats or has a gap.
    """

    def by_artifact(f: LockedFile) -> tuple[Any, ...]:
        return _position(f.source, asked), _numbers(f.source), _numbers(f.path)

    ordered = sorted(files, key=lambda f: _numbers(f.path))
    for a, b in pairwise(ordered):
        same_number = a.path != b.path and _numbers(a.path) == _numbers(b.path)
        if _shape(a.path) != _shape(b.path) or same_number:
            raise ConfigError(
                f"dumps.{dump}: {a.path} and {b.path} are both called {site}, but their names differ "
                "in something else than the number of a chunk; list the one that is meant, or both "
                f'in order, in dumps.{dump}.sites as `{site}: ["{a.path}", "{b.path}"]`'
            )
    if len({f.path for f in ordered}) < len(ordered):
        ordered.sort(key=by_artifact)
        for a, b in pairwise(ordered):
            if (a.source, a.path) == (b.source, b.path):
                raise ConfigError(f"dumps.{dump}: {a.path} of {a.source} occurs twice in the lock")
    _check_numbers(dump, site, [_numbers(f.path) for f in ordered])
    return ordered


def _shape(name: str) -> str:
    """A name without the numbers that are no part of a site."""
    pieces, at = [], 0
    for m in _SITE.finditer(name):
        pieces += [re.sub(r"\d+", "#", name[at : m.start()]), m[0]]
        at = m.end()
    return "".join([*pieces, re.sub(r"\d+", "#", name[at:])])


def _check_numbers(dump: str, site: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Names as `_numbers` cuts them may differ in one number, which counts without a gap."""
    columns = [c for c in zip(*rows, strict=True) if len(set(c)) > 1]
    where = f"dumps.{dump}: chunks of {site}"
    if len(columns) > 1:
        raise ConfigError(
            f"{where}: their names differ in several numbers ({columns[0][0]}, {columns[1][0]}, …); "
            f"list the files in order in dumps.{dump}.sites"
        )
    for column in columns:
        numbers = sorted(set(column))
        gaps = [range(a + 1, min(b, a + 6)) for a, b in pairwise(numbers) if b > a + 1]
        missing = [n for gap in gaps[:5] for n in gap][:5]
        if missing:
            raise ConfigError(
                f"{where} run from {numbers[0]} to {numbers[-1]}, but "
                f"{', '.join(map(str, missing))} are missing"
            )


def _numbers(name: str) -> tuple[Any, ...]:
    """A name cut into its texts and numbers."""
    return tuple(int(p) if i % 2 else p for i, p in enumerate(re.split(r"([0-9]+)", name)))


def _position(source: str, asked: Sequence[str]) -> int:
    """Place of an artifact version among those asked for, whose versions may be aliases."""
    if source in asked:
        return asked.index(source)
    names = [a.partition(":")[0] for a in asked]
    name = source.partition(":")[0]
    return names.index(name) if name in names else len(names)
