"""Run the pending contrastive or baselines targets of this rule."""

from actprobe import jobs
from actprobe.contrastive.run import run

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule, snakemake.resources.get("mem_mb"))
    run(batch, config, snakemake.threads)
