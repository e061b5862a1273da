"""What a batch's job asks Snakemake for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from actprobe import flow
from actprobe.cache.plan import Batch
from actprobe.experiment import costs
from actprobe.experiment.stages import STAGES

CONFIG = {"threads": {"activations": 8, "saes": 6, "probes": 3}, "shards": {"latents": 2}}
SMALL = costs.Cost(500, 11, 0, 1.0)
LARGE = costs.Cost(9000, 600, 0, 1e5, gpu=2)


def run(cost=SMALL, prefix=""):
    found = dict.fromkeys(STAGES, cost)
    gpu = {"slurm_partition": "gpu"}
    plan = SimpleNamespace(config=CONFIG)
    return flow.Run(plan, True, True, gpu, lambda rule: prefix + rule, found)  # type: ignore[arg-type]


def batch(stage, n=2):
    return Batch(stage, stage, "m", tuple(range(n)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stage", "n", "threads"),
    [("activations", 2, 8), ("answers", 2, 8), ("weights", 1, 8), ("latents", 2, 6), ("saes", 1, 6),
     ("probes", 2, 2), ("probes", 9, 3), ("texts", 9, 1), ("lora_primitives", 9, 1)],
)  # fmt: skip
def test_threads_are_those_of_the_config_that_the_estimate_is_made_for(stage, n, threads):
    assert run().threads(batch(stage, n)) == threads


def test_what_needs_the_network_runs_beside_snakemake():
    local = {stage for stage in STAGES if run().is_local(batch(stage))}
    assert local == {"wheels", "hub", "prompts", "texts", "dumps"}


def test_small_jobs_of_a_stage_share_submissions():
    assert run().group(batch("probes")) == "small_probes"
    assert run(LARGE).group(batch("probes")) is None
    assert run().group(batch("latents")) is None, "shards ask for many jobs"
    assert run().group(batch("activations")) is None


def test_a_prefix_that_makes_names_too_long_for_a_group_keeps_jobs_apart():
    """The executor names a folder after the jobs of a group."""
    assert run(prefix="x" * costs.LONGEST_NAME).group(batch("probes")) is None


def test_each_attempt_asks_for_twice_as_much():
    needs = run().needs(batch("probes"))
    assert needs["mem_mb"](None, 3) == 4 * needs["mem_mb"](None, 1)
    assert needs["runtime"](None, 2) == 2 * needs["runtime"](None, 1)
    assert "gpu" not in needs and "slurm_partition" not in needs


def test_gpus_come_with_the_partition_that_has_them():
    needs = run(LARGE).needs(batch("activations"))
    assert needs["gpu"] == 2 and needs["slurm_partition"] == "gpu"
