"""The plan of this run, made by the main process and read by the jobs. No rules here.

REQUIRED INPUTS: the config.
OUTPUTS: RUN (what a batch's job asks of Snakemake), PLAN (batches per stage), CONFIG (resolved), RESULTS
and CONTRASTIVE (files of the reports), FINAL.
"""

from actprobe import contexts, contrastive, flow, results

RUN = flow.begin(config, workflow)
PLAN = RUN.plan
CONFIG = PLAN.config
RESULTS = results.outputs(CONFIG)
CONTRASTIVE = contrastive.outputs(CONFIG)
PAGES = [contexts.page(CONFIG, path) for path in PLAN.paths("top_contexts")]
APPLIED = contrastive.paths(PLAN)  # fits that are tested on other datasets
DIRECTIONS = [p for of in CONTRASTIVE.values() for p in of.values()] if APPLIED else []
# What the report reads is made on the way to it.
FINAL = (
    [p for of in RESULTS.values() for p in of.values()] if PLAN.paths("probes") else []
)
FINAL += DIRECTIONS
FINAL += [p for p in PLAN.wanted if PLAN.targets[p].stage not in {"texts", "probes"}]
FINAL = FINAL + PAGES or PLAN.wanted
RUN.enter(FINAL)
# What tables, figures and report depend on: a change of memory or threads is no reason to redraw.
REPORTED = {
    k: v
    for k, v in CONFIG.items()
    if k not in ("max_memory", "threads", "shards", "scratch")
}
