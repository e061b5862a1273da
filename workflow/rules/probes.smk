"""Probes: fits of one protocol and setting, many datasets per job, one thread per worker; and fits tried
on other collections.

REQUIRED INPUTS: activations and texts, features and labels of LoRAs.
OUTPUTS: {cache_dir}/probes/{protocol}/{setting}/{source}/{dataset}.{method}.{key}.parquet,
{cache_dir}/evaluations/{protocol}/{setting}/{source}/{dataset}.{method}@{collection}.{key}.parquet
"""

for batch in PLAN.of("probes") + PLAN.of("evaluations"):

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
        threads: min(CONFIG["threads"]["probes"], len(batch.targets))
        resources:
            **needs(batch),
        script:
            "../scripts/probes.py"
