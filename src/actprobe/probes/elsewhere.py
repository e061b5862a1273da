"""Entries of `probes` whose protocol fits all rows of a dataset and tests on other datasets.

`apply_to` names the datasets that test. What of an entry is for such protocols alone: `score_at`, the
position at which they are read; `compare_with`, a dataset whose mean difference could be what is really
found. Fits of other protocols are tried on datasets by `evaluations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from actprobe.base.errors import ConfigError
from actprobe.cache import plan
from actprobe.cache.plan import Target
from actprobe.config import matching, nearest
from actprobe.probes import protocol as protocols

KEYS = ("score_at", "compare_with")
TEXTS = "texts"  # the source that every dataset has: its texts
# What a method reads -> the kinds of sources that have it, where the two names differ.
_READ = {"pooled": ("activations", "tokens")}

Matrices = Mapping[str, Mapping[str, list[Target]]]  # source -> dataset -> artefacts
Data = dict[str, Target]


def reads(method: Mapping[str, Any], kind: str) -> bool:
    """Whether a method reads sources of a kind."""
    return kind in _READ.get(method["reads"], (method["reads"],))


def of_position(kinds: Mapping[str, Matrices]) -> Matrices:
    """Sources of activations, whatever their position; what it tells is told by layer, so arrays, which
    have no site, are none."""
    both = {**kinds["activations"], **kinds["tokens"]}
    return {
        s: of for s, of in both.items() if any(t.args["site"] for ts in of.values() for t in ts)
    }


def check_keys(protocol: Mapping[str, Any], entry: Mapping[str, Any], where: str) -> None:
    """Refuse keys that the protocol of an entry does not know, and a lack of those that it needs."""
    name = protocol["name"]
    if protocols.tests_elsewhere(protocol):
        if not entry["apply_to"]:
            raise ConfigError(
                f"{where}: {name} fits all rows of a dataset and tests on others: name these with "
                "`apply_to: [...]`"
            )
        if entry["one_vs_rest"]:
            raise ConfigError(f"{where}: {name} has no one_vs_rest; leave it out")
        return
    for key in KEYS:
        if entry[key]:
            raise ConfigError(
                f"{where}: {name} tests on rows of the dataset itself; leave `{key}` out, or use "
                "contrastive-1"
            )


def fits(
    protocol: Mapping[str, Any],
    entry: Mapping[str, Any],
    texts: Mapping[str, Target],
    kinds: Mapping[str, Matrices],
    where: str,
) -> Iterator[tuple[str, str, Data]]:
    """Setting, method and artefacts of each fit of an entry.

    Raises ConfigError for a dataset or source that does not exist, for a test set that is also fitted or
    compared with, or that has no activations where it is scored.
    """
    datasets = matching(entry["datasets"], texts, f"{where}.datasets", "dataset")
    applied = matching(entry["apply_to"], texts, f"{where}.apply_to", "dataset")
    compare = entry["compare_with"]
    if compare and compare not in texts:
        raise ConfigError(
            f"{where}.compare_with: no dataset {compare!r}; {nearest(compare, texts)}"
        )
    for name in applied:
        if name in datasets or name == compare:
            raise ConfigError(
                f"{where}: {name} cannot be its own test set; name other datasets in `datasets` and in "
                "`apply_to`"
            )
    asked = _methods(protocol, entry["methods"])
    sources = of_position(kinds)
    for dataset in datasets:
        own = [s for s, of in sources.items() if dataset in of]
        for source in matching(entry["sources"], own, f"{where}.sources", f"source of {dataset}"):
            for test in applied:
                data = _data(texts, sources, source, dataset, test, entry, where)
                for setting in entry["settings"]:
                    yield from ((setting, m, data) for m, how in asked.items() if how != TEXTS)
        for test in applied:
            of_texts = {"texts": texts[dataset], "matrix": texts[dataset]}
            of_texts |= {"test_texts": texts[test], "test_matrix": texts[test]}
            for setting in entry["settings"]:
                yield from ((setting, m, of_texts) for m, how in asked.items() if how == TEXTS)


def _methods(protocol: Mapping[str, Any], asked: list[str] | None) -> dict[str, str]:
    """The methods that run and what they read: those asked for, or the default ones, and baselines."""
    return {
        name: how["reads"]
        for name, how in protocol["methods"].items()
        if name in protocol.get("baselines", ())
        or (how.get("default", True) if asked is None else name in asked)
    }


def _data(
    texts: Mapping[str, Target],
    sources: Matrices,
    source: str,
    dataset: str,
    test: str,
    entry: Mapping[str, Any],
    where: str,
) -> Data:
    own = plan.only(sources[source][dataset], f"{where}.datasets")
    place, position = own.args, entry["score_at"] or own.args["position"]
    at = source
    if position != place["position"]:
        at = f"{place['model']}/{place['site']}.{position}"

    def found(role: str, name: str, of: str) -> Target:
        if name not in sources.get(of, {}):
            raise ConfigError(f"{where}.{role}: {of} is not computed for {name}")
        return plan.only(sources[of][name], f"{where}.{role}")

    data = {"texts": texts[dataset], "matrix": own}
    data |= {"test_texts": texts[test], "test_matrix": found("apply_to", test, at)}
    if compare := entry["compare_with"]:
        data |= {"compare_texts": texts[compare]}
        data |= {"compare_matrix": found("compare_with", compare, source)}
    return data
