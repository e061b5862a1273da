"""Directions as files: vectors, and the scores of the rows of other datasets along them.

REQUIRED INPUTS: fits that are tested on other datasets, and texts.
OUTPUTS: {results_dir}/{experiment}/contrastive/
"""


rule directions:
    """Table, figures, vectors and scores of directions."""
    input:
        fits=APPLIED,
        texts=PLAN.paths("texts"),
    output:
        vectors=directory(VECTORS),
    log:
        "logs/directions.log",
    localrule: True
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
    script:
        "../scripts/directions.py"
