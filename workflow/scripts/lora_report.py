"""Write the page of the LoRA probes."""

from actprobe import jobs
from actprobe.lora.report import make_report

with jobs.logged(snakemake.log[0]):
    make_report(snakemake.params.config, snakemake.params.contexts)
