"""Results: tables, figures and the report, from probe results alone.

REQUIRED INPUTS: probe results, texts, and what tells of LoRA files that were left out.
OUTPUTS: {results_dir}/{experiment}/{tables,figures}/*, report.html
"""

from actprobe import lora
from actprobe.results import provenance

ORIGIN = provenance.origin(PLAN, "probes")


rule tables:
    """Tidy tables of fits, datasets, comparisons and what was left out, from probe results."""
    input:
        probes=PLAN.paths("probes"),
        evaluations=PLAN.paths("evaluations"),
        texts=PLAN.paths("texts"),
        indexes=PLAN.paths("lora_index"),
        features=lora.telling(PLAN.paths("features")),
    output:
        **TABLES,
    log:
        "logs/tables.log",
    localrule: True
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
        encoded=results.encoded(PLAN),
        origin=ORIGIN,
        rules=results.threshold_rules(PLAN),
    script:
        "../scripts/tables.py"


rule figures:
    """Figures as SVG and PNG, drawn from the tables."""
    input:
        rules.tables.output,
        fits=APPLIED,
    output:
        **{
            name: report(
                path,
                caption=pages.caption(name.rsplit("_", 1)[0]),
                category="Figures",
                labels={"figure": name},
            )
            for name, path in REPORT["figures"].items()
        },
    log:
        "logs/figures.log",
    localrule: True
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
    script:
        "../scripts/figures.py"


rule report:
    """The page of the experiment, which opens offline."""
    input:
        rules.tables.output,
        rules.figures.output,
        texts=PLAN.paths("texts"),
    output:
        **REPORT["report"],
    log:
        "logs/report.log",
    localrule: True
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
        contexts=PAGES,
        reads=ORIGIN["reads"] if APPLIED else [],
    script:
        "../scripts/report.py"
