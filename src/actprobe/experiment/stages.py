"""The stages: what makes a batch of each, and how such a job is to be run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Stage:
    """How the jobs of a stage are run.

    run: "module:function" below `actprobe`, called with a batch, the config and the number of threads.
    first: one that is called before anything imports NumPy, without arguments. threads: the key of
    `threads` in the config that says how many; without it a job has one. workers: these threads make a
    target each, so more than there are targets are of no use. local: runs beside Snakemake and not on
    a compute node, which often has no way out. grouped: small jobs share a submission.
    """

    run: str
    first: str = ""
    threads: str = ""
    workers: bool = False
    local: bool = False
    grouped: bool = False


STAGES = {  # in the order in which they are made
    "wheels": Stage("texts.wheels:run", local=True),
    "hub": Stage("texts.fetched:run", local=True),
    "prompts": Stage("texts.run:run", local=True),
    "answers": Stage("models.answers.run:run", threads="activations"),
    "texts": Stage("texts.run:run", local=True),
    "weights": Stage("models.gguf.convert:run", threads="activations"),
    "activations": Stage("models.run:run", threads="activations"),
    "differences": Stage("models.subtract:run"),
    "imports": Stage("imports.run:run"),
    "arrays": Stage("arrays.run:run"),
    "dumps": Stage("dumps.fetch:run", local=True),
    "assemble": Stage("dumps.assemble:run"),
    "assemble_latents": Stage("dumps.assemble:run"),
    "saes": Stage("sae.saes_stage:make", first="sae.kernel:prefer_avx512", threads="saes"),
    "latents": Stage(
        "sae.latents_stage:run", first="sae.kernel:prefer_avx512", threads="saes", grouped=True
    ),
    "probes": Stage("probes.batch:run", threads="probes", workers=True, grouped=True),
    "evaluations": Stage(
        "probes.evaluations.run:run", threads="probes", workers=True, grouped=True
    ),
    "top_contexts": Stage("contexts.run:run"),
    "lora_index": Stage("lora.index:run"),
    "lora_primitives": Stage("lora.primitives:run"),
    "features": Stage("lora.features:run"),
}
# What runs a batch of a loader that makes a stage's artefacts in a way of its own: texts of answers.
_OF_LOADER = {("texts", "answers"): "models.answers.rows:run"}


def runner(stage: str, loader: str = "") -> Callable[..., None]:
    """What makes a batch of this stage and loader; called with the batch, the config, the threads.

    Calls what must come before NumPy first, and imports the room's heavy libraries.
    """
    if STAGES[stage].first:
        _function(STAGES[stage].first)()
    return _function(_OF_LOADER.get((stage, loader), STAGES[stage].run))


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(f"actprobe.{module}"), function)
