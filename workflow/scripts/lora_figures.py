"""Draw the figures of the LoRA probes from the tables."""

from actprobe import jobs
from actprobe.lora.figures import make_figures

with jobs.logged(snakemake.log[0]):
    make_figures(snakemake.params.config)
