"""Choice by validation with its ties, and paired comparisons on matched conditions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from results_rows import with_saes
from scipy import stats

from actprobe import report, results
from actprobe.results import compare, select
from actprobe.results import stats as stats_room


def candidates(rows: list[tuple[str, str, int | None, float, float]]) -> pd.DataFrame:
    """Tidy rows from (dataset, method, k, val_score, test_score), in this order."""
    columns = ["dataset", "method", "k", "val_score", "test_score"]
    table = pd.DataFrame(rows, columns=columns).assign(
        experiment="e",
        protocol="p",
        setting="normal",
        condition="",
        model="m",
        seed=42,
        label="",
        kind="binary",
        metric="auc",
    )
    table["site"], table["position"], table["reason"] = "resid_post.3", "last", ""
    table["source"] = np.where(table["k"].isna(), "m/resid_post.3.last", "sae")
    return table.astype({"k": "Int64", "method": "str"})


TIED = [
    ("a", "mlp", None, 0.9, 0.7),
    ("a", "ksparse_b", 16, 0.9, 0.95),
    ("a", "logreg", None, 0.9, 0.8),
    ("a", "pca", None, 0.8, 0.99),
    ("b", "pca", None, 0.6, 0.5),
    ("b", "mlp", None, 0.7, 0.4),
]


def test_quiver_takes_the_highest_validation_auc_and_tells_the_ties() -> None:
    chosen = select.quiver(candidates(TIED)).set_index("dataset")
    assert chosen["method"].to_dict() == {"a": "logreg", "b": "mlp"}
    assert chosen["n_tied"].to_dict() == {"a": 3, "b": 1}
    band = chosen.loc["a", ["tie_low", "tie_mean", "tie_high"]].tolist()
    assert band == pytest.approx([0.7, (0.7 + 0.95 + 0.8) / 3, 0.95])


def test_the_tie_rule_methods_does_not_depend_on_the_order_of_rows() -> None:
    rows = candidates(TIED)
    shuffled = [select.quiver(rows.sample(frac=1, random_state=i)) for i in range(5)]
    assert all(set(c["method"]) == {"logreg", "mlp"} for c in shuffled)
    assert select.quiver(rows, ties="rows")["method"].tolist() == ["mlp", "mlp"]
    with pytest.raises(ValueError, match="no tie rule 'luck'; expected one of methods, rows"):
        select.quiver(rows, ties="luck")


def test_last_digits_of_validation_aucs_do_not_decide() -> None:
    rows = candidates([("a", "logreg", None, 0.9, 0.8), ("a", "mlp", None, 0.9 + 1e-16, 0.7)])
    assert select.quiver(rows)["method"].tolist() == ["logreg"]
    assert select.quiver(rows, tolerance=0)["method"].tolist() == ["mlp"]


def test_rows_without_a_number_cannot_be_chosen() -> None:
    rows = candidates([("a", "logreg", None, 0.9, np.nan), ("a", "mlp", None, np.nan, 0.7)])
    assert select.quiver(rows).empty


def test_arms_add_sae_probes_at_two_sizes_and_never_controls() -> None:
    table = with_saes()
    control = table[table["method"] == "pca"].assign(method="control_shuffled", val_score=1.0)
    sets = select.arms(pd.concat([table, control]))
    assert list(sets) == ["baselines", "baselines + ksparse_b"]
    assert set(sets["baselines + ksparse_b"]["k"].dropna()) == {16, 128}
    assert "control_shuffled" not in set(sets["baselines"]["method"])


def test_quiver_table_has_a_row_per_setting_and_candidate_set() -> None:
    quivers = results.quiver_table(with_saes())
    assert quivers[["setting", "candidates"]].to_numpy().tolist() == [
        ["normal", "baselines"],
        ["normal", "baselines + ksparse_b"],
        ["scarcity", "baselines"],
        ["scarcity", "baselines + ksparse_b"],
    ]
    assert (quivers["tie_low"] <= quivers["test_score"]).all()
    assert (quivers["test_score"] <= quivers["tie_high"]).all()


def test_unmatched_results_are_refused_with_examples() -> None:
    table = with_saes()
    one = table[(table["method"] == "logreg") & (table["setting"] == "normal")]
    other = table[(table["method"] == "pca") & (table["setting"] == "normal")]
    with pytest.raises(compare.Unmatched, match=r"only the reference has 2 of 6.*dataset=5_hist"):
        results.matched(one.iloc[2:], other)
    with pytest.raises(compare.Unmatched, match=r"only the probe has 6 of 6.*seed=42"):
        results.matched(one, other.assign(condition="16"))
    with pytest.raises(compare.Unmatched, match="several results for one group"):
        results.matched(pd.concat([one, one]), other)
    assert len(results.matched(one, other)) == 6


def test_compare_tells_difference_interval_test_and_wins() -> None:
    rng = np.random.default_rng(1)
    delta = rng.normal(0.02, 0.01, 40)
    reference = rng.uniform(0.6, 0.9, 40)
    pairs = pd.DataFrame({"dataset": range(40), "probe": reference + delta, "reference": reference})
    found = compare.compare(pairs)
    assert found["delta"] == pytest.approx(delta.mean())
    assert found["ci_low"] < delta.mean() < found["ci_high"]
    assert found["ci_low"] > 0
    assert found["p"] == stats.wilcoxon(pairs["probe"] - pairs["reference"]).pvalue
    assert (found["wins"], found["losses"], found["ties"]) == (
        (delta > 0).sum(),
        (delta < 0).sum(),
        0,
    )
    same = compare.compare(pairs.assign(probe=reference))
    assert np.isnan(same["p"]) and same["ties"] == 40


def test_conditions_of_a_dataset_are_no_independent_evidence() -> None:
    once = pd.DataFrame({"dataset": range(9), "probe": np.linspace(0.5, 0.9, 9), "reference": 0.6})
    often = pd.concat([once] * 10)
    alone, repeated = compare.compare(once), compare.compare(often)
    assert repeated["n_pairs"] == 90 and repeated["n_datasets"] == 9
    for name in ("ci_low", "ci_high", "p"):
        assert repeated[name] == pytest.approx(alone[name])


def test_holm_on_the_textbook_case() -> None:
    assert compare.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert compare.holm([0.6, np.nan, 0.9])[[0, 2]].tolist() == [1.0, 1.0]


def test_comparison_table_is_paired_and_reports_what_it_left_out() -> None:
    table = with_saes()
    lost = (table["method"] == "ksparse_b") & (table["dataset"] == "66_living-room")
    table.loc[lost, ["test_score", "test_score_unseen"]] = np.nan
    table.loc[lost, "reason"] = "no live latents"
    rows = results.comparison_table(table).set_index(["setting", "probe"])
    sparse = rows.loc[("normal", "ksparse_b, k = 16")]
    assert sparse["reference"] == "logreg" and sparse["source"] == "sae_16k"
    assert (sparse["n_pairs"], sparse["n_unmatched"]) == (5, 1)
    assert sparse["delta"] == pytest.approx(-0.02)
    assert sparse["delta_unseen"] == pytest.approx(0)
    assert sparse["losses"] == 5 and sparse["p"] == 0.0625
    assert ("normal", "quiver: baselines + ksparse_b") in rows.index
    assert ("scarcity", "ksparse_b by validation") in rows.index


def test_tables_without_sae_probes_or_baselines_have_no_such_rows() -> None:
    table = with_saes()
    sparse_only = table[table["k"].notna()]
    assert results.comparison_table(sparse_only).empty
    base = results.comparison_table(table[table["k"].isna()])
    assert set(base["probe"]) == {"pca", "knn", "xgboost", "mlp"}
    assert results.quiver_table(table.iloc[:0]).empty


def test_controls_are_no_reference_and_count_for_no_correction() -> None:
    table = with_saes()
    base = table[table["method"] == "pca"]
    kept = table[~table["method"].isin(["logreg", "pca", "knn", "xgboost", "mlp"])]
    known = pd.concat([kept, base.assign(method="svm")], ignore_index=True)
    control = base.assign(method="control_random_direction", test_score=0.5)
    both = pd.concat([known, control], ignore_index=True)
    found = compare.comparison_table(both)
    assert set(found["reference"]) == {"svm", "quiver: baselines"}
    is_control = found["probe"] == "control_random_direction"
    assert is_control.any() and found.loc[is_control, "p_holm"].isna().all()
    alone = compare.comparison_table(known)
    rest = found[~is_control].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, alone)


def family(n_probes: int, n_datasets: int, ks: int = 0) -> pd.DataFrame:
    """logreg and probes that are a little worse on each dataset, and one SAE at `ks` sizes."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.7, 0.9, n_datasets)
    rows = [(f"d{i}", "logreg", None, 0.9, base[i]) for i in range(n_datasets)]
    for p in range(n_probes):
        rows += [
            (f"d{i}", f"m{p}", None, 0.8, base[i] - 0.001 * (i + 1)) for i in range(n_datasets)
        ]
    for k in range(ks):
        rows += [(f"d{i}", "ksparse_b", k + 1, 0.8, base[i] - 0.1) for i in range(n_datasets)]
    return candidates(rows).assign(test_score_unseen=np.nan, columns="")


def test_d5_a_family_is_what_claims_something_and_is_counted() -> None:
    """Twenty sizes of one SAE are a curve: they cost the other comparisons nothing."""
    rows = compare.comparison_table(family(4, 12, ks=20)).set_index("probe")
    claimed = rows[rows["family"].notna()]
    assert len(rows) > 20 and set(claimed["family"]) == {len(claimed)} == {5}
    assert rows["p_holm"].notna().sum() == 5
    assert claimed.loc["m0", "p_holm"] == pytest.approx(5 * 2.0**-11)


def test_d5_where_no_p_can_pass_that_is_said_instead() -> None:
    rows = compare.comparison_table(family(22, 9)).set_index("probe")
    rows = rows.drop("quiver: baselines", errors="ignore")
    assert rows["p"].min() == 2.0**-8, "the smallest that nine datasets can give"
    assert rows["p_holm"].isna().all()
    assert set(rows["p_note"]) == {
        "too few datasets for a p: of 22 comparisons none can pass 0.05 with 9; 10 could"
    }
    enough = compare.comparison_table(family(22, 10))
    assert enough["p_holm"].notna().all() and set(enough["p_note"]) == {""}


def test_d5_a_dataset_without_a_difference_is_no_evidence() -> None:
    pairs = pd.DataFrame(
        {"dataset": range(6), "probe": [0.6] * 6, "reference": [0.5] * 4 + [0.6] * 2}
    )
    found = compare.compare(pairs)
    assert found["p"] == found["p_least"] == 2.0**-3


def test_d2_intervals_over_few_datasets() -> None:
    values = np.array([0.90, 0.97, 0.99, 0.95, 0.93])
    mean, low, high = stats_room.mean_interval(values)
    half = stats.t.ppf(0.975, 4) * values.std(ddof=1) / np.sqrt(5)
    assert mean == pytest.approx(values.mean())
    assert low < mean - half * 0.999 and mean + half * 0.999 <= high <= 1
    for few in ([], [0.7], [0.7, 0.9], [0.7, np.nan, 0.9], [0.8, 0.8, 0.8]):
        assert np.isnan(stats_room.mean_interval(few)[1:]).all(), few
    assert stats_room.mean_interval([0.7, np.nan])[0] == 0.7


def test_d2_a_symmetric_spread_has_students_interval() -> None:
    values = 0.8 + np.linspace(-0.1, 0.1, 201)
    _, low, high = stats_room.mean_interval(values)
    half = stats.t.ppf(0.975, 200) * values.std(ddof=1) / np.sqrt(201)
    assert [low, high] == pytest.approx([0.8 - half, 0.8 + half], abs=1e-9)
    wide = stats_room.mean_interval(values, 0.99)
    assert wide[1] < low < high < wide[2]
    assert stats_room.mean_interval([0.0, 0.5, 1.0])[1:] == (0.0, 1.0)
    assert stats_room.mean_interval([-0.9, 0.0, 0.9], within=(-1, 1))[1:] == (-1.0, 1.0)


def test_d2_skewed_datasets_are_covered() -> None:
    """AUCs of which most are near 1: of 400 samples of 15 at least 92 in 100 intervals hold."""
    rng = np.random.default_rng(0)
    for a, b in ((20, 1.5), (8, 3)):
        samples = rng.beta(a, b, (400, 15))
        bounds = np.array([stats_room.mean_interval(s)[1:] for s in samples])
        hits = (bounds[:, 0] <= a / (a + b)) & (a / (a + b) <= bounds[:, 1])
        assert hits.mean() > 0.92


def seeds(*choices: tuple[int, str, float, float]) -> pd.DataFrame:
    """Tidy rows of one dataset from (seed, method, val_score, test_score)."""
    rows = candidates([("a", method, None, val, test) for _, method, val, test in choices])
    return rows.assign(seed=[seed for seed, *_ in choices])


def test_d13_each_seed_chooses_for_itself() -> None:
    """pca has the highest mean, made by the rows on which logreg is tested in the other seed."""
    rows = seeds(
        (0, "logreg", 0.8, 0.5), (1, "logreg", 0.7, 0.6), (0, "pca", 0.75, 0.9), (1, "pca", 0.9, 0.4)
    )  # fmt: skip
    chosen = select.best_by_validation(rows)
    assert chosen[["seed", "method"]].to_numpy().tolist() == [[0, "logreg"], [1, "pca"]]
    [first, *_] = report.headline(results.tidy(rows))
    assert first.startswith(
        "logreg on m, resid_post.3, last is the best of 2 probes by validation AUC in 1 of 2 seeds; "
        "what each seed chooses reaches a mean test AUC of 0.450 over 1 dataset"
    )


def test_d13_probes_that_cover_fewer_datasets_are_no_candidates() -> None:
    rows = candidates(
        [("a", "logreg", None, 0.7, 0.7), ("b", "logreg", None, 0.7, 0.7), ("a", "mlp", None, 1, 1)]
    )
    chosen = select.best_by_validation(rows)
    assert chosen["method"].tolist() == ["logreg", "logreg"]
    assert select.best_by_validation(rows.assign(val_score=np.nan)).empty
    [first, *_] = report.headline(results.tidy(rows.assign(val_score=np.nan)))
    assert first == "No probe of p has a validation AUC: none is the best by it."
