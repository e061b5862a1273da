"""Write tables, vectors, figures and the page of the contrastive probes."""

from actprobe import jobs
from actprobe.contrastive.results import make_results

with jobs.logged(snakemake.log[0]):
    make_results(
        snakemake.params.config,
        snakemake.input.directions,
        snakemake.input.baselines,
        snakemake.input.texts,
        snakemake.params.origin,
        snakemake.params.contexts,
    )
