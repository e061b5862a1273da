"""Hand-made features beside a model, through the workflow."""

from __future__ import annotations

import pandas as pd

SOURCES = {"tiny/resid_post.0.mean", "tiny/resid_post.1.mean", "counts"}


def write_counts(folder, name: str) -> None:
    """A csv of two features of each text, by the number of its row, the last row first."""
    texts = pd.read_csv(folder / f"{name}.csv")["text"]
    table = pd.DataFrame({"n_cat": texts.str.count("cat"), "n_chars": texts.str.len()})
    table.iloc[::-1].to_csv(folder / f"{name}.counts.csv", index_label="row")


def test_hand_made_features_are_probed_beside_a_model(empty):
    for name in "ab":
        write_counts(empty.folder, name)
    empty.config["arrays"] = {"counts": {"path": "{dataset}.counts.csv", "id": "row"}}
    empty.config["probes"][0]["sources"].append("counts")
    assert empty.plan() == {"texts": 2, "activations": 4, "arrays": 2, "probes": 6}
    empty.snakemake()
    root = empty.folder / "results" / "toy"
    table = pd.read_csv(root / "tables" / "probes.csv")
    assert set(table["source"]) == SOURCES
    own = table[table["source"] == "counts"]
    assert (own["test_auc"] > 0.99).all() and (own["model"] == "counts").all()
    assert own["site"].isna().all() and own["position"].isna().all()
    assert "counts" in (root / "report.html").read_text()
    assert "Nothing to be done" in empty.snakemake("-n")

    before = empty.snapshot()
    file = empty.folder / "a.counts.csv"
    file.write_text(file.read_text().replace(",", ",1", 1))  # a name of a column
    file.write_text(file.read_text().replace("159,", "159,4", 1))
    assert empty.plan() == {"arrays": 1, "probes": 1}
    empty.snakemake()
    after = empty.snapshot()
    new = {p.parts[1] for p in after.keys() - before.keys()}
    assert before.items() <= after.items() and new == {"arrays", "probes"}
    assert len(after) == len(before) + 2

    empty.config["arrays"]["chars"] = {**empty.config["arrays"].pop("counts"), "columns": ["n_c*"]}
    empty.config["probes"][0]["sources"][-1] = "chars"
    assert empty.plan() == {"arrays": 2, "probes": 2}
