"""Run the pending top_contexts targets of this rule."""

from actprobe import jobs
from actprobe.contexts.run import run

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule, snakemake.resources.get("mem_mb"))
    run(batch, config, snakemake.threads)
