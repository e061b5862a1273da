"""Results: tables, figures and the report, from probe results alone.

REQUIRED INPUTS: probe results, texts, and what tells of LoRA files that were left out.
OUTPUTS: {results_dir}/{experiment}/{tables,figures}/*, report.html
"""

from actprobe import lora, provenance

ORIGIN = provenance.origin(PLAN, "probes")


rule tables:
    input:
        probes=PLAN.paths("probes"),
        texts=PLAN.paths("texts"),
        indexes=PLAN.paths("lora_index"),
        features=lora.telling(PLAN.paths("features")),
    output:
        **TABLES,
    log:
        "logs/tables.log",
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
        encoded=results.encoded(PLAN),
        origin=ORIGIN,
    script:
        "../scripts/tables.py"


rule figures:
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
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
    script:
        "../scripts/figures.py"


rule report:
    input:
        rules.tables.output,
        rules.figures.output,
        texts=PLAN.paths("texts"),
    output:
        **REPORT["report"],
    log:
        "logs/report.log",
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=REPORTED,
        contexts=PAGES,
        reads=ORIGIN["reads"] if APPLIED else [],
    script:
        "../scripts/report.py"
