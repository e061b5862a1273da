"""Write the tables of the LoRA probes."""

from actprobe import jobs
from actprobe.lora.results import make_tables

with jobs.logged(snakemake.log[0]):
    make_tables(
        snakemake.params.config,
        snakemake.input.probes,
        snakemake.input.indexes,
        snakemake.input.features,
        snakemake.params.origin,
    )
