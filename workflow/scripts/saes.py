"""Run the pending saes targets of this rule."""

from actprobe.sae.kernel import prefer_avx512

prefer_avx512()  # before anything imports NumPy

from actprobe import jobs  # noqa: E402
from actprobe.sae.saes_stage import make  # noqa: E402

with jobs.logged(snakemake.log[0]):
    batch, config = jobs.load(snakemake.rule, snakemake.resources.get("mem_mb"))
    make(batch, config, snakemake.threads)
