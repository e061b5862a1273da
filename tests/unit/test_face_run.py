"""An experiment as Python sees it: tables, matrices, probes and their scores on rows old and new."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import face_made
import numpy as np
import pandas as pd
import pytest

import actprobe
from actprobe import cli
from actprobe.base.errors import ActprobeError, BadInput

SOURCE = face_made.SOURCE
TOLERANCE = 1e-5  # of a score: what another batch does to a forward pass in float32


@pytest.fixture(scope="session")
def file():
    return face_made.once()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture(scope="session")
def run(file):
    return actprobe.load(file)


@pytest.fixture(scope="session")
def texts(run):
    return run.texts("a")


def probe(run, position="mean", method="logreg", **which):
    return run.probe("a", f"{SOURCE}.{position}", method, **which)


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, actprobe; print(*{'torch', 'pandas', 'h5py', 'sklearn'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_matrices_are_mapped_and_have_ids_and_labels(run, texts):
    found = run.activations("a", f"{SOURCE}.mean")
    assert isinstance(found.x, np.memmap) and found.x.shape == (120, 32)
    assert not found.x.flags.writeable
    assert found.ids.tolist() == texts["id"].tolist() == [f"r{i}" for i in range(120)]
    assert found.labels[:2].tolist() == ["no", "yes"]
    tokens = run.activations("a", f"{SOURCE}.tokens")
    assert tokens.offsets[-1] == len(tokens.x) and len(tokens.offsets) == 121
    codes = run.latents("a", "codes")
    assert codes.x.shape == (120, 64) and codes.x.nnz > 0 and codes.ids[0] == "r0"


def test_tables_and_evaluations_are_read(run):
    assert {"probes", "datasets", "errors", "transfer"} <= set(run.tables)
    assert "test_score" in run.table("probes")
    found = run.evaluations(collection="b", method="logreg")
    assert set(found["collection"]) == {"b"} and found["score"].notna().all()
    with pytest.raises(ActprobeError, match=r"did you mean 'probes'.*snakemake --cores 2 tables"):
        run.table("probe")


@pytest.mark.parametrize(
    ("position", "method", "which"),
    [("mean", "logreg", {}), ("last", "logreg", {}), ("max", "mean_difference", {}),
     ("mean", "knn", {}), ("mean", "mlp", {}), ("tokens", "attention", {})],
)  # fmt: skip
def test_new_texts_get_the_scores_of_the_run(run, texts, position, method, which):
    own = probe(run, position, method, **which)
    stored = own.scores.set_index("id")["score"]
    found = pd.Series(own.score_texts(texts["text"].tolist()), texts["id"])
    assert (found[stored.index] - stored).abs().max() < TOLERANCE
    few = own.score_texts(texts["text"].tolist()[:3])  # in another batch
    assert np.abs(few - found.to_numpy()[:3]).max() < TOLERANCE


def test_new_texts_pass_through_the_sae(run, texts):
    own = run.probe("a", "codes", "ksparse_b", k=5)
    stored = own.scores.set_index("id")["score"]
    found = pd.Series(own.score_texts(texts["text"].tolist()), texts["id"])
    assert (found[stored.index] - stored).abs().max() < TOLERANCE
    assert own.coef_.shape == (64,) and np.count_nonzero(own.coef_) <= 5


def test_a_probe_speaks_scikit_learns_words(run):
    own, found = probe(run), run.activations("a", f"{SOURCE}.mean")
    decisions = own.decision_function(found)
    assert np.allclose(found.x @ own.coef_ + own.intercept_, decisions, atol=1e-6)
    scores = own.score(found.x)
    assert np.allclose(scores, 1 / (1 + np.exp(-decisions)))
    assert own.classes_.tolist() == ["no", "yes"] and own.threshold == 0.5
    assert (own.predict(found) == own.classes_[(scores > 0.5).astype(int)]).all()
    splits = own.scores.groupby("split").size()
    assert splits["test"] == 36 and splits.sum() == 120


def test_tokens_have_scores_and_words(run):
    own = probe(run)
    (table,) = own.score_texts(["a cat"], tokens=True)
    assert "".join(table["token"]) == "a cat" and table["end"].tolist() == [1, 2, 3, 4, 5]
    assert own.score_texts(["a cat"])[0] == pytest.approx(
        1 / (1 + np.exp(-np.log(table["score"] / (1 - table["score"])).mean())), abs=1e-6
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [(["a", " "], "row '1' is empty"), ("a cat", "write \\[text\\]"), ([3], "neither a text nor a chat"),
     ([], "no texts"), (["x" * 400], "more than the 256 tokens that the model reads: '0' \\(401\\)")],
)  # fmt: skip
def test_rows_that_cannot_be_scored_are_named(run, rows, words):
    with pytest.raises(BadInput, match=words):
        probe(run).score_texts(rows)


def test_long_texts_are_cut_where_that_is_asked_for(run):
    assert probe(run).score_texts(["x" * 400], cut=True).shape == (1,)


def test_numbers_from_elsewhere_are_refused_with_both_values(run):
    own, other = probe(run), run.activations("b", f"{SOURCE}.last")
    with pytest.raises(BadInput, match="position: the probe mean, the data last"):
        own.score(other)
    assert own.score(other, override="to see").shape == (120,)
    assert own.card.overrides == ("position: the probe mean, the data last (to see)",)
    with pytest.raises(BadInput, match="31 columns; this probe reads 32"):
        own.score(np.zeros((2, 31)))
    with pytest.raises(BadInput, match="row 1 is not finite"):
        own.score(np.array([[0.0] * 32, [np.nan] * 32]))
    with pytest.raises(BadInput, match="expected numbers"):
        own.score([["a"] * 32])


@pytest.mark.parametrize(
    ("which", "words"),
    [({"dataset": "c"}, "asks for no probe c .*did you mean 'a "),
     ({"source": "codes", "method": "ksparse_b"}, "2 fits; say which: k=1 or 5"),
     ({"seed": 7}, "no such fit; there are"), ({"layer": 1}, "no fit has a 'layer'")],
)  # fmt: skip
def test_a_fit_that_is_not_one_is_refused_with_the_choices(run, which, words):
    asked = {"dataset": "a", "source": f"{SOURCE}.mean", "method": "logreg", **which}
    with pytest.raises(ActprobeError, match=words):
        run.probe(**asked)


def test_what_is_not_computed_names_the_command(file, tmp_path):
    content = face_made.config(file.parent, cache_dir=str(tmp_path / "cache"))
    run = actprobe.load(content)
    with pytest.raises(
        ActprobeError, match=r"not computed yet: .*make it: snakemake --cores 2 act"
    ):
        run.activations("a", f"{SOURCE}.mean")
    with pytest.raises(ActprobeError, match=r"is not fitted yet: .*snakemake --cores 2 probes"):
        probe(run)


def test_a_folder_gives_equal_scores_in_a_fresh_process_without_the_cache(
    run, texts, file, tmp_path
):
    own = probe(run)
    folder = own.save(tmp_path / "probe", licence="mit", scores=True)
    rows = (texts["text"].tolist() * 9)[:1000]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    hidden = file.parent / "cache"
    hidden.rename(file.parent / "hidden")
    try:
        code = (
            "import json, actprobe; p = actprobe.load_probe('probe');"
            "print(json.dumps(p.score_texts(json.load(open('rows.json'))).tolist()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    finally:
        (file.parent / "hidden").rename(hidden)
    found = np.array(json.loads(done.stdout.splitlines()[-1]))
    assert len(found) == 1000
    assert np.array_equal(found, own.score_texts(rows))
    again = actprobe.load_probe(folder)
    assert again.card.numbers == own.card.numbers and again.threshold == own.threshold
    assert again.scores["score"].tolist() == own.scores["score"].tolist()
    assert "license: mit" in (folder / "README.md").read_text()


def test_another_model_in_its_place_is_refused(run, file, tmp_path):
    folder = probe(run).save(tmp_path / "probe")
    shutil.copytree(file.parent / "model", tmp_path / "model")
    assert actprobe.load_probe(folder, model=str(tmp_path / "model")).score_texts(["a"]).shape == (
        1,
    )
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    other = actprobe.load_probe(folder, model=str(tmp_path / "model"))
    with pytest.raises(
        BadInput, match=r"is not the model of this probe: model: the probe .*the data"
    ):
        other.score_texts(["a"])
    assert other.score_texts(["a"], override="a trial").shape == (1,)
    assert "(a trial)" in other.card.overrides[0]


def test_an_altered_folder_is_refused_by_digest(run, tmp_path):
    folder = probe(run).save(tmp_path / "probe")
    file = folder / "probe.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadInput, match=r"tensor 'intercept' was altered: [0-9a-f]{16}…, not"):
        actprobe.load_probe(folder)
    assert actprobe.load_probe(folder, override="mine").card.overrides
    told = json.loads((folder / "probe.json").read_text())
    told["tensors"]["slope"] = "0" * 64
    (folder / "probe.json").write_text(json.dumps(told))
    with pytest.raises(BadInput, match=r"'intercept' was altered|'slope' is missing"):
        actprobe.load_probe(folder)
    file.unlink()
    with pytest.raises(BadInput, match="the tensors of the probe"):
        actprobe.load_probe(folder)


def test_row_tables_say_what_the_fits_said(run, file):
    table = pd.read_parquet(file.parent / "results/toy/tables/scores.parquet")
    one = table[(table["method"] == "logreg") & (table["source"] == f"{SOURCE}.mean")]
    own = probe(run).scores
    assert (
        one["id"].tolist() == own["id"].tolist() and one["score"].tolist() == own["score"].tolist()
    )
    assert table.equals(table) and len(run.scores(method="logreg")) == 3 * 120
    errors = run.table("errors")
    wrong = errors[(errors["method"] == "logreg") & (errors["source"] == f"{SOURCE}.mean")]
    test = own[own["split"] == "test"]
    assert len(wrong) == min(20, int((test["label"] != test["prediction"]).sum()))
    assert (wrong["label"] != wrong["prediction"]).all() and wrong["margin"].is_monotonic_decreasing
    texts = run.texts("a").set_index("id")["text"]
    assert (texts[wrong["id"]].to_numpy() == wrong["text"].to_numpy()).all()


def test_the_command_line_shows_scores_and_exports(run, file, tmp_path, capsys):
    config = ["--configfile", str(file)]
    assert cli.main(["show", "probes/*attention", *config]) == 0
    out = capsys.readouterr().out
    assert "1 files" in out and ".parquet" in out and "probes/paper/multi_token" in out
    export = ["export", "probes", "actprobe", str(tmp_path / "out"), "--method", "logreg"]
    assert cli.main([*export, "--source", "*mean", *config]) == 0
    folder = capsys.readouterr().out.strip()
    (tmp_path / "new.txt").write_text("a cat sees\nthe dog\n")
    assert cli.main(["score", folder, str(tmp_path / "new.txt")]) == 0
    said = capsys.readouterr().out.splitlines()
    expected = probe(run).score_texts(["a cat sees", "the dog"])
    assert said[0] == "id,score,prediction" and float(said[1].split(",")[1]) == expected[0]
    assert cli.main(["score", folder, str(file.parent / "a.csv"), "--id", "id", "--tokens"]) == 0
    assert capsys.readouterr().out.startswith("token,id,start,end,score,row")
