"""Write the one-page report."""

from actprobe import contrastive, jobs
from actprobe.results import make_report

with jobs.logged(snakemake.log[0]):
    config, params = snakemake.params.config, snakemake.params
    parts = []
    if snakemake.input.directions:
        parts.append(contrastive.make_part(config, snakemake.input.texts, params.reads))
    make_report(config, contexts=params.contexts, parts=parts)
