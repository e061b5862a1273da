"""Write the one-page report."""

from actprobe.cache import jobs
from actprobe.report import make_report

with jobs.logged(snakemake.log[0]):
    params = snakemake.params
    make_report(params.config, snakemake.input.texts, params.contexts, params.reads)
