"""Probes: fits of one protocol and setting, many datasets per job, one thread per worker; and fits tried
on other collections.

REQUIRED INPUTS: activations and texts, features and labels of LoRAs.
OUTPUTS: {cache_dir}/probes/{protocol}/{setting}/{source}/{dataset}.{method}.{key}.parquet,
{cache_dir}/evaluations/{protocol}/{setting}/{source}/{dataset}.{method}@{collection}.{key}.parquet
"""

for batch in PLAN.of("probes", "evaluations"):

    rule:
        """probes: fits and their numbers, of one protocol, setting and source, for all pending datasets.
        evaluations: those fits tried on other collections."""
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
