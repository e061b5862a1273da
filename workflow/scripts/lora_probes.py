"""Run the pending lora_probes targets of this rule."""

from actprobe import jobs
from actprobe.lora import probe

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule, snakemake.resources.get("mem_mb"))
    probe.run(batch, config, snakemake.threads)
