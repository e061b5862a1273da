"""Dumps at Weights & Biases: fetched once, verified, assembled; and pages of top contexts.

REQUIRED INPUTS: the lock files of `dumps` (`actprobe lock NAME`).
OUTPUTS: {cache_dir}/dumps/{dump}/{algorithm}.{digest}.{ext}, assembled
{cache_dir}/activations/{model}/{dataset}/{site}.{position}.{key}.h5 or
{cache_dir}/latents/{dump}.{site}/{dataset}.{key}.h5,
{cache_dir}/top_contexts/{source}/{dataset}.{key}.parquet,
{results_dir}/{experiment}/contexts/{source}.{dataset}.html
"""

for batch in PLAN.of("dumps", "assemble", "assemble_latents", "top_contexts"):

    rule:
        """dumps: files of one dump, checked against its lock file. assemble, assemble_latents:
        activations and latents out of its chunks. top_contexts: the tokens that excite each latent of a
        source most, with what stands around them."""
        name:
            batch.rule
        input:
            batch.inputs,
        output:
            batch.outputs,
        log:
            f"logs/{batch.rule}.log",
        group:
            RUN.group(batch)
        localrule: RUN.is_local(batch)
        conda:
            "../../envs/actprobe.yaml"
        threads: RUN.threads(batch)
        resources:
            **RUN.needs(batch),
        script:
            "../scripts/stage.py"


if PAGES:

    rule contexts:
        """Pages of top contexts, one for each source and dataset."""
        input:
            PLAN.paths("top_contexts"),
        output:
            PAGES,
        log:
            "logs/contexts.log",
        localrule: True
        conda:
            "../../envs/actprobe.yaml"
        script:
            "../scripts/contexts.py"
