"""Run the pending lora_probes targets of this rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe import jobs
from actprobe.lora import probe

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule)
    probe.run(batch, config, snakemake.threads)
