"""Results: tables, figures and the report, from probe results alone.

REQUIRED INPUTS: probe results and texts.
OUTPUTS: {results_dir}/{experiment}/{tables,figures}/*, report.html
"""


rule tables:
    input:
        probes=PLAN.paths("probes"),
        texts=PLAN.paths("texts"),
    output:
        **{k: v for k, v in RESULTS.items() if "/tables/" in v},
    log:
        "logs/tables.log",
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=CONFIG["results"],
        experiment=CONFIG["experiment"],
    script:
        "../scripts/tables.py"


rule figures:
    input:
        rules.tables.output.probes_parquet,
    output:
        **{
            k: report(v, caption="../report/figure.rst", category="Figures")
            for k, v in RESULTS.items()
            if "/figures/" in v
        },
    log:
        "logs/figures.log",
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=CONFIG["results"],
    script:
        "../scripts/figures.py"


rule report:
    input:
        tables=rules.tables.output,
        figures=rules.figures.output,
    output:
        RESULTS["report"],
    log:
        "logs/report.log",
    conda:
        "../../envs/actprobe.yaml"
    params:
        config=CONFIG,
    script:
        "../scripts/report.py"
