"""A method and a metric of one's own: in the table, the comparisons and the page, by one file."""

from __future__ import annotations

import csv
import textwrap

OWN = """
    import numpy as np
    from sklearn.neighbors import NearestCentroid

    from actprobe.probes.kinds import BINARY, CLASSES
    from actprobe.probes.methods import method
    from actprobe.probes.metrics import metric


    @method("nearest_mean", kinds=CLASSES)
    def nearest_mean(how, params, seed):
        return NearestCentroid(**params)


    @metric("misses", kinds=(BINARY,), label="missed rows of class 1", higher=False)
    def misses(y, scores, predicted):
        return float(np.mean(predicted[y == 1] == 0))
"""
PROTOCOL = """
    name: mine
    description: with a method of my own
    extends: saeprobes-0.4.2-fast
    methods:
      own: {family: nearest_mean, reads: activations, scaler: standard, tiny: {}}
"""


def test_one_file_is_enough(empty):
    (empty.folder / "mine.py").write_text(textwrap.dedent(OWN))
    (empty.folder / "mine.yaml").write_text(textwrap.dedent(PROTOCOL))
    empty.config |= {
        "extensions": ["mine.py"],
        "saes": {
            "small": {
                "model": "tiny", "site": "resid_post.1", "position": "mean",
                "train": {"width": 32, "k": 4, "epochs": 1, "rows": "all"},
            }
        },
        "probes": [
            {"protocol": "mine.yaml", "sources": ["tiny/resid_post.1.mean", "small"],
             "methods": ["logreg", "own", "ksparse_b"]},
        ],
    }  # fmt: skip
    empty.config["activations"].append(
        {"model": "tiny", "sites": ["resid_post.1"], "positions": ["tokens"]}
    )
    empty.snakemake()
    results = empty.folder / "results" / "toy"
    with open(results / "tables" / "probes.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert {r["method"] for r in rows} == {"logreg", "own", "ksparse_b"}
    assert all(0 <= float(r["test_misses"]) <= 1 for r in rows if not r["reason"])
    assert "test_misses" in (results / "tables" / "summary.csv").read_text()
    assert ",own," in (results / "tables" / "comparisons.csv").read_text()
    page = (results / "report.html").read_text()
    assert "missed rows of class 1" in page and "own" in page

    assert "Nothing to be done" in empty.snakemake("-n")
    (empty.folder / "mine.py").write_text(textwrap.dedent(OWN) + "# changed\n")
    assert set(empty.plan()) == {"probes"}, "and nothing else"
