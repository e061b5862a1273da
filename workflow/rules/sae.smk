"""SAEs: trained or converted where needed; latents, one load of an SAE for all pending datasets.

REQUIRED INPUTS: activations; SAE files that the config names.
OUTPUTS: {cache_dir}/saes/{sae}.{key}.h5, {cache_dir}/latents/{sae}/{dataset}.{key}.h5
"""

for batch in PLAN.of("saes", "latents"):

    rule:
        """saes: one sparse autoencoder, trained here or converted from a format that is slow to read.
        latents: what one SAE encodes, for all pending datasets."""
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
