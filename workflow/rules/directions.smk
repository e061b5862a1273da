"""Directions: table, figures, vectors and scores of fits that are tested on other datasets.

REQUIRED INPUTS: probe results and texts, tables.
OUTPUTS: {results_dir}/{experiment}/{tables,figures}/contrastive*, contrastive/
"""


rule directions:
    """Table, figures, vectors and scores of directions."""
    input:
        *RESULTS["tables"].values(),
        fits=APPLIED,
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
    log:
        "logs/directions.log",
    localrule: True
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
    script:
        "../scripts/directions.py"
