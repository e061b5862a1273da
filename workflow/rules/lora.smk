"""LoRA weights: an index of each collection, primitives by shard, representations, classifiers.

REQUIRED INPUTS: the LoRA files and label tables that the config names.
OUTPUTS: {cache_dir}/lora_index/*.parquet, {cache_dir}/lora_primitives/{collection}/*.h5,
{cache_dir}/features/{collection}/*.h5, {cache_dir}/lora_probes/*/{collection}/*.parquet,
{results_dir}/{experiment}/{tables,figures}/lora_*, lora.html
"""

from actprobe import provenance

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


for batch in PLAN.of("lora_probes"):

    rule:
        name:
            batch.rule
        input:
            batch.inputs,
        output:
            batch.outputs,
        log:
            f"logs/{batch.rule}.log",
        group:
            group_of(batch)
        conda:
            "../../envs/actprobe.yaml"
        threads: 1
        resources:
            **needs(batch),
        script:
            "../scripts/lora_probes.py"


rule lora_tables:
    input:
        probes=PLAN.paths("lora_probes"),
        indexes=PLAN.paths("lora_index"),
        features=lora.telling(PLAN.paths("features")),
    output:
        **{
            name: report(path, caption="../report/lora_tables.rst", category="Tables")
            for name, path in LORA_RESULTS["tables"].items()
        },
    log:
        "logs/lora_tables.log",
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
        origin=provenance.origin(PLAN, "lora_probes"),
    script:
        "../scripts/lora_tables.py"


rule lora_figures:
    input:
        rules.lora_tables.output,
    output:
        **{
            name: report(
                path,
                caption=f"../report/{name.rsplit('_', 1)[0]}.rst",
                category="Figures",
                labels={"figure": name},
            )
            for name, path in LORA_RESULTS["figures"].items()
        },
    log:
        "logs/lora_figures.log",
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
    script:
        "../scripts/lora_figures.py"


rule lora_report:
    input:
        rules.lora_tables.output,
        rules.lora_figures.output,
    output:
        **LORA_RESULTS["report"],
    log:
        "logs/lora_report.log",
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
        contexts=PAGES,
    script:
        "../scripts/lora_report.py"
