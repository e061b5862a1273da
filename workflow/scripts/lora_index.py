"""Run the pending lora_index targets of this rule."""

from actprobe import jobs
from actprobe.lora import index

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule, snakemake.resources.get("mem_mb"))
    index.run(batch, config, snakemake.threads)
