"""Write the table, vectors and figures of directions."""

from actprobe import contrastive, jobs

with jobs.logged(snakemake.log[0]):
    contrastive.make_results(snakemake.params.config, snakemake.input.fits, snakemake.input.texts)
