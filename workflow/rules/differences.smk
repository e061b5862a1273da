"""Differences: activations of a model minus those of another on the same rows.

REQUIRED INPUTS: activations.
OUTPUTS: {cache_dir}/differences/{model}-minus-{other}/{dataset}/{site}.{position}.{key}.h5
"""

for batch in PLAN.of("differences"):

    rule:
        """Activations of a model minus those of another, for all pending datasets."""
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
