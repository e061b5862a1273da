"""Which rows of a dataset the probes of a source test on: what they read must not learn from these."""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actprobe.base import keys
from actprobe.base.errors import BadInput
from actprobe.probes import protocol as protocols

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WHOLE = ("", "")  # in place of protocol and setting: every row with a label tests

Test = tuple[str, str]  # protocol and setting, as the config names them


def tests(config: Mapping[str, Any], source: str, datasets: Iterable[str]) -> dict[str, list[Test]]:
    """The tests of each dataset by the `probes` entries that read a source; light.

    A dataset that is the test set of another one (out of distribution) tests as a whole.
    """
    datasets = list(datasets)
    found: dict[str, set[Test]] = defaultdict(set)
    for entry in config.get("probes") or []:
        if not any(fnmatch.fnmatchcase(source, p) for p in entry["sources"]):
            continue
        protocol = protocols.load(entry["protocol"])
        if protocols.tests_elsewhere(protocol):
            continue  # reads no latents
        settings = protocol["settings"]
        chosen = [d for d in datasets if any(fnmatch.fnmatchcase(d, p) for p in entry["datasets"])]
        for setting in entry["settings"]:
            pattern = settings.get(setting, {}).get("test_set")
            for dataset in chosen:
                if pattern is None:
                    found[dataset].add((entry["protocol"], setting))
                elif (other := pattern.format(dataset=dataset)) in datasets:
                    found[other].add(WHOLE)
    return {d: sorted(found[d]) for d in datasets if found[d]}


def digest(test: Test) -> str:
    """What decides the rows of a test: 64 hex digits."""
    return keys.spec_key({"test": "whole"} if tuple(test) == WHOLE else _recipe(test))


def _recipe(test: Test) -> dict[str, Any]:
    protocol = protocols.load(test[0])
    setting = {k: v for k, v in protocol["settings"][test[1]].items() if k not in ("methods", "ks")}
    return {**{k: protocol[k] for k in ("seeds", "rows", "split")}, "setting": setting}


def rows(texts: str, wanted: Sequence[Test]) -> NDArray[np.bool_]:
    """Rows of a texts artefact that any of these tests tests on, in any condition and seed, [N].

    Raises BadInput for a tombstone.
    """
    import numpy as np

    from actprobe.cache import store
    from actprobe.probes import data, fit, sizes

    tested = np.zeros(len(store.read_table(texts, ["digest"])), bool)
    try:
        labels = data.labels(texts)
    except BadInput:  # no labels: nothing tests
        return tested
    for test in wanted:
        if tuple(test) == WHOLE:
            tested[labels.row] = True
            continue
        recipe = _recipe(test) | {"method": {"reads": "latents"}}
        for seed in recipe["seeds"]:
            own = fit.kept(labels, recipe, seed)
            for condition in sizes.conditions(recipe["setting"]):
                try:
                    tested[own.row[fit.split(own, recipe, condition, seed).test]] = True
                except sizes.CannotFit:
                    continue
    return tested
