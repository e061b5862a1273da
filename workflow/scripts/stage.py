"""Make the pending files of this rule, whichever stage they are of."""

from actprobe.cache import jobs
from actprobe.experiment import stages

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.output[0], snakemake.resources.get("mem_mb"))
    stages.runner(batch.stage, batch.loader)(batch, config, snakemake.threads)
