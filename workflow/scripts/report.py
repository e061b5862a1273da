"""Write the one-page report."""

from actprobe import jobs
from actprobe.results import make_report

with jobs.logged(snakemake.log[0]):
    make_report(snakemake.params.config, contexts=snakemake.params.contexts)
