"""Arrays: features from files of other tools or made by hand, in the order of a dataset.

REQUIRED INPUTS: the files of `arrays`; texts.
OUTPUTS: {cache_dir}/arrays/{source}/{dataset}.{key}.h5
"""

for batch in PLAN.of("arrays"):

    rule:
        """Features out of the files of one source, in the order of the dataset's rows."""
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
