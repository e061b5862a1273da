"""Write the pages of top contexts from their tables."""

from actprobe.cache import jobs
from actprobe.contexts.pages import write_page

with jobs.logged(snakemake.log[0]):
    for table, page in zip(snakemake.input, snakemake.output, strict=True):
        write_page(table, page)
