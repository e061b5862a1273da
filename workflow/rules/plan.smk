"""The plan of this run, made by the main process and read by the jobs. No rules here.

REQUIRED INPUTS: the config.
OUTPUTS: RUN (what a batch's job asks of Snakemake), PLAN (batches per stage), CONFIG (resolved), TABLES,
REPORT and VECTORS (files of results), FINAL.
"""

from actprobe import contexts, flow, report as pages, results
from actprobe.config import plain

RUN = flow.begin(config, workflow)
PLAN = RUN.plan
CONFIG = PLAN.config
TABLES = results.outputs(CONFIG)
REPORT = pages.outputs(CONFIG)
VECTORS = results.vectors(CONFIG)
PAGES = [contexts.page(CONFIG, path) for path in PLAN.paths("top_contexts")]
APPLIED = results.applied(PLAN)  # fits that are tested on other datasets
# What the report reads is made on the way to it.
FINAL = []
if PLAN.paths("probes"):
    FINAL += [*TABLES.values(), *(p for of in REPORT.values() for p in of.values())]
if APPLIED:
    FINAL += [VECTORS]
FINAL += [
    p
    for p in PLAN.wanted
    if PLAN.targets[p].stage not in {"texts", "probes", "evaluations"}
]
FINAL = FINAL + PAGES or PLAN.wanted
RUN.enter(FINAL)
# What tables, figures and report depend on: a change of memory or threads is no reason to redraw.
REPORTED = {
    k: v
    for k, v in plain(CONFIG).items()
    if k not in ("max_memory", "threads", "shards", "scratch")
}
