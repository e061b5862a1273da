"""Imports: activations that other tools cached, checked and brought among the cached ones.

REQUIRED INPUTS: the folders of `imports`; texts.
OUTPUTS: {cache_dir}/activations/{model}/{dataset}/{site}.{position}.{key}.h5
"""

for batch in PLAN.of("imports"):

    rule:
        """Activations out of one folder of another tool, in the order of the dataset's rows."""
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
