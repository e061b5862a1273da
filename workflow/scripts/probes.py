"""Run the pending fits or evaluations of this rule."""

from actprobe import experiment, jobs

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule, snakemake.resources.get("mem_mb"))
    experiment.run(batch, config, snakemake.threads)
