"""Run the pending features targets of this rule."""

from actprobe import jobs
from actprobe.lora import features

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule, snakemake.resources.get("mem_mb"))
    features.run(batch, config, snakemake.threads)
