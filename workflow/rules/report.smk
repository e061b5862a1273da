"""Results: tables, figures and the report, from probe results alone.

REQUIRED INPUTS: probe results, texts, and what tells of LoRA files that were left out.
OUTPUTS: {results_dir}/{experiment}/{tables,figures}/*, report.html
"""

from actprobe import lora, provenance

ORIGIN = provenance.origin(PLAN, "probes")


rule tables:
    input:
        probes=PLAN.paths("probes"),
        evaluations=PLAN.paths("evaluations"),
        texts=PLAN.paths("texts"),
        indexes=PLAN.paths("lora_index"),
        features=lora.telling(PLAN.paths("features")),
    output:
        **RESULTS["tables"],
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
    output:
        **{
            name: report(
                path,
                caption=f"../report/{name.rsplit('_', 1)[0]}.rst",
                category="Figures",
                labels={"figure": name},
            )
            for name, path in RESULTS["figures"].items()
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
        directions=DIRECTIONS,
        texts=PLAN.paths("texts"),
    output:
        **RESULTS["report"],
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
