"""SAEs: trained or converted where needed; latents, one load of an SAE for all pending datasets.

REQUIRED INPUTS: activations; SAE files that the config names.
OUTPUTS: {cache_dir}/saes/{sae}.{key}.h5, {cache_dir}/latents/{sae}/{dataset}.{key}.h5
"""

for batch in PLAN.of("saes"):

    rule:
        name:
            batch.rule
        input:
            batch.inputs,
        output:
            batch.outputs,
        log:
            f"logs/{batch.rule}.log",
        conda:
            "../../envs/actprobe.yaml"
        threads: CONFIG["threads"]["saes"]
        resources:
            **needs(batch),
        script:
            "../scripts/saes.py"


for batch in PLAN.of("latents"):

    rule:
        name:
            batch.rule
        input:
            batch.inputs,
        output:
            batch.outputs,
        log:
            f"logs/{batch.rule}.log",
        group:
            group_of(batch)
        conda:
            "../../envs/actprobe.yaml"
        threads: CONFIG["threads"]["saes"]
        resources:
            **needs(batch),
        script:
            "../scripts/latents.py"
