"""Imports: activations that other tools cached, checked and brought among the cached ones.

REQUIRED INPUTS: the folders of `imports`; texts.
OUTPUTS: {cache_dir}/activations/{model}/{dataset}/{site}.{position}.{key}.h5
"""

for batch in PLAN.of("imports"):

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
            "../scripts/import_activations.py"
