"""Contrastive probes: directions between two classes of cached activations, tried on other data.

REQUIRED INPUTS: activations and texts.
OUTPUTS: {cache_dir}/contrastive/{source}/{train}.{key}.h5,
{cache_dir}/baselines/{train}/{dataset}.{key}.parquet,
{results_dir}/{experiment}/{tables,figures}/contrastive*, contrastive/, contrastive.html
"""

from actprobe import provenance

for batch in [*PLAN.of("contrastive"), *PLAN.of("baselines")]:

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
            "../scripts/contrastive.py"


rule contrastive_report:
    input:
        directions=PLAN.paths("contrastive"),
        baselines=PLAN.paths("baselines"),
        texts=PLAN.paths("texts"),
    output:
        **{
            name: report(
                path,
                caption=f"../report/{name.rsplit('_', 1)[0]}.rst",
                category="Figures",
                labels={"figure": name},
            )
            for name, path in CONTRASTIVE["figures"].items()
        },
        vectors=directory(CONTRASTIVE["vectors"]["vectors"]),
        table=report(
            CONTRASTIVE["tables"]["table"],
            caption="../report/contrastive.rst",
            category="Tables",
        ),
        provenance=CONTRASTIVE["tables"]["provenance"],
        html=CONTRASTIVE["report"]["html"],
    log:
        "logs/contrastive_report.log",
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
        origin=provenance.origin(PLAN, "contrastive", "baselines"),
        contexts=PAGES,
    script:
        "../scripts/contrastive_report.py"
