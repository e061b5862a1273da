"""Run the pending saes targets of this rule."""

from actprobe import jobs
from actprobe.sae.saes_stage import make

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule, snakemake.resources.get("mem_mb"))
    make(batch, config, snakemake.threads)
