"""Run the pending lora_primitives targets of this rule."""

from actprobe import jobs
from actprobe.lora import primitives

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule, snakemake.resources.get("mem_mb"))
    primitives.run(batch, config, snakemake.threads)
