"""Dumps at Weights & Biases: fetched once, verified, assembled; and pages of top contexts.

REQUIRED INPUTS: the lock files of `dumps` (`actprobe lock NAME`).
OUTPUTS: {cache_dir}/dumps/{dump}/{algorithm}.{digest}.{ext}, assembled
{cache_dir}/activations/{model}/{dataset}/{site}.{position}.{key}.h5 or
{cache_dir}/latents/{dump}.{site}/{dataset}.{key}.h5,
{cache_dir}/top_contexts/{source}/{dataset}.{key}.parquet,
{results_dir}/{experiment}/contexts/{source}.{dataset}.html
"""

for batch in PLAN.of("dumps"):

    rule:
        name:
            batch.rule
        input:
            batch.inputs,
        output:
            batch.outputs,
        log:
            f"logs/{batch.rule}.log",
        localrule: True  # compute nodes often have no way out
        conda:
            "../../envs/actprobe.yaml"
        threads: 1
        script:
            "../scripts/fetch.py"


for batch in PLAN.of("assemble") + PLAN.of("assemble_latents"):

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
        threads: 1
        resources:
            **needs(batch),
        script:
            "../scripts/assemble.py"


for batch in PLAN.of("top_contexts"):

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
        threads: 1
        resources:
            **needs(batch),
        script:
            "../scripts/top_contexts.py"


if PAGES:

    rule contexts:
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
