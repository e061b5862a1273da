"""Write directions, and the scores along them, as files."""

from actprobe.cache import jobs
from actprobe.exchange import vectors

with jobs.logged(snakemake.log[0]):
    vectors.write(snakemake.params.config, snakemake.input.fits, snakemake.input.texts)
