"""Differences: activations of a model minus those of another on the same rows.

REQUIRED INPUTS: activations.
OUTPUTS: {cache_dir}/differences/{model}-minus-{other}/{dataset}/{site}.{position}.{key}.h5
"""

for batch in PLAN.of("differences"):

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
            "../scripts/differences.py"
