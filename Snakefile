"""actprobe: probing experiments on the inside of neural networks.

texts -> activations -> probes -> results. The plan (workflow/rules/plan.smk) says which cached files
are wanted and not there; the planned rules of each room make exactly these.

  snakemake --cores N            compute what is missing, then tables, figures and report
  snakemake -n                   say in words what would be computed, and why
  snakemake --cores N probes     one stage: texts, activations, probes
"""

import os
import sys

from snakemake.utils import min_version

min_version("9.25")

if not workflow.config_settings.configfiles:
    if not os.path.exists("config/config.yaml"):
        sys.exit(
            "actprobe: no config/config.yaml in this folder; name a config: "
            "snakemake TARGETS --cores N --configfile mine.yaml"
        )

    configfile: "config/config.yaml"


include: "workflow/rules/plan.smk"


localrules:
    all,
    tables,
    figures,
    report,
    directions,


rule all:
    default_target: True
    input:
        FINAL,


include: "workflow/rules/texts.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/activations.smk"
include: "workflow/rules/differences.smk"
include: "workflow/rules/imports.smk"
include: "workflow/rules/arrays.smk"
include: "workflow/rules/dumps.smk"
include: "workflow/rules/sae.smk"
include: "workflow/rules/probes.smk"
include: "workflow/rules/lora.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/directions.smk"


for stage in STAGES:

    rule:
        name:
            stage
        input:
            PLAN.paths(stage),
        localrule: True
