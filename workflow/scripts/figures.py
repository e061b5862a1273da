"""Draw the figures from the tables."""

from actprobe.cache import jobs
from actprobe.report import make_figures

with jobs.logged(snakemake.log[0]):
    make_figures(snakemake.params.config, snakemake.input.fits)
