"""Run the pending wheels targets of this rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actprobe import jobs, texts

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule)
    texts.fetch_wheels(batch, config, snakemake.threads)
