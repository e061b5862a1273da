"""A method and a metric of one's own: in the table, the comparisons and the page, by one file."""

from __future__ import annotations

import csv

import own_extension


def test_one_file_is_enough(empty):
    code, _ = own_extension.write(empty.folder, base="saeprobes-0.4.2-fast")
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
    code.write_text(code.read_text() + "# changed\n")
    assert set(empty.plan()) == {"probes"}, "and nothing else"
