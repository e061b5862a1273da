"""LoRA weights: an index of each collection, primitives by shard, representations.

REQUIRED INPUTS: the LoRA files and label tables that the config names.
OUTPUTS: {cache_dir}/lora_index/*.parquet, {cache_dir}/lora_primitives/{collection}/*.h5,
{cache_dir}/features/{collection}/*.h5
"""

for batch in PLAN.of("lora_index"):

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
            "../scripts/lora_index.py"


for batch in PLAN.of("lora_primitives"):

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
            "../scripts/lora_primitives.py"


for batch in PLAN.of("features"):

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
            "../scripts/lora_features.py"
