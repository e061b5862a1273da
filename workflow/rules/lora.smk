"""LoRA weights: an index of each collection, primitives by shard, representations.

REQUIRED INPUTS: the LoRA files and label tables that the config names.
OUTPUTS: {cache_dir}/lora_index/*.parquet, {cache_dir}/lora_primitives/{collection}/*.h5,
{cache_dir}/features/{collection}/*.h5
"""

for batch in PLAN.of("lora_index", "lora_primitives", "features"):

    rule:
        """lora_index: what each file of a collection is, or why it is refused. lora_primitives: numbers
        of each LoRA that all representations are made of. features: a row of numbers for each LoRA.
        """
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
