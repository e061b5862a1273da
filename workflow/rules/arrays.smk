"""Arrays: features from files of other tools or made by hand, in the order of a dataset.

REQUIRED INPUTS: the files of `arrays`; texts.
OUTPUTS: {cache_dir}/arrays/{source}/{dataset}.{key}.h5
"""

for batch in PLAN.of("arrays"):

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
            "../scripts/arrays.py"
