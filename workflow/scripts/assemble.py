"""Run the pending assemble targets of this rule."""

from actprobe import jobs
from actprobe.dumps.assemble import run

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule, snakemake.resources.get("mem_mb"))
    run(batch, config, snakemake.threads)
