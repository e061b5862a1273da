"""Run the pending activations targets of this rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe import jobs, models

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule)
    models.run(batch, config, snakemake.threads)
