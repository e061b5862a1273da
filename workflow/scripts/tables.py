"""Write the tables of the experiment."""

from actprobe import lora
from actprobe.cache import jobs
from actprobe.results import make_tables
from actprobe.results.rows import Collections
from actprobe.texts import describe

with jobs.logged(snakemake.log[0]):
    make_tables(
        snakemake.params.config,
        snakemake.input.probes,
        describe(snakemake.input.texts),
        snakemake.params.encoded,
        snakemake.params.origin,
        lora.left_out(snakemake.input.indexes, snakemake.input.features),
        snakemake.input.evaluations,
        Collections(snakemake.input.texts, snakemake.input.features),
        snakemake.params.rules,
    )
