"""Labels of spans and turns reach a probe: positions that take the part a label is of."""

from __future__ import annotations

import numpy as np
import pytest
from answers_tiny import make, save_speaker, target
from texts_inputs import configured, jsonl

from actprobe import models
from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.cache import store
from actprobe.experiment import targets as experiment
from actprobe.texts.table import load as texts_of

WORDS = ["red", "blue", "green", "warm"]
SPANS = {"it": {"labelled": True}, "end": {"labelled": True, "reduce": "last"},
         "said": {"role": "assistant", "turn": -1}}  # fmt: skip


def talks(n=64):
    """Chats of two answers each, whose labels are the answers' first letters."""
    found = []
    for i in range(n):
        said = [f"{'yn'[(i + k) % 2]} {WORDS[(i * 3 + k) % 4]} {i}" for k in range(2)]
        found.append({"messages": [
            m for k, s in enumerate(said) for m in (
                {"role": "user", "content": f"{WORDS[i % 4]}?"},
                {"role": "assistant", "content": s, "yes": "ny"[s[0] == "y"]},
            )
        ], "marks": [[0, 1, said[1][0]]]})  # fmt: skip
    return found


def config(folder, dataset, positions=("span.it",), **more):
    if not (folder / "model").exists():
        save_speaker(folder / "model")
    (folder / "d.jsonl").write_text(jsonl(*talks()))
    entry = {"name": "d", "path": str(folder / "d.jsonl"), "messages": "messages", "label": None}
    model = {"source": str(folder / "model"), "device": "cpu", **more.pop("model", {})}
    return configured(
        folder, entry | dataset, models={"m": model},
        activations=[{"model": "m", "sites": ["embed", "resid_post.1"], "positions": list(positions),
                      "spans": SPANS}], **more,
    )  # fmt: skip


def read(made):
    found = [t for t in made.targets.values() if t.stage == "activations"]
    return {t.args.source.removeprefix("m/"): models.load_activations(t.path) for t in found}


TURNS = {"turns": {"label": "yes", "rows": True}}
MARKS = {"spans": {"column": "marks", "rows": True}}


def test_the_part_of_a_turn_is_what_it_says(tmp_path):
    found = read(make(config(tmp_path, TURNS, ["span.it", "span.said"])))
    np.testing.assert_array_equal(found["embed.span.it"], found["embed.span.said"])
    np.testing.assert_array_equal(found["resid_post.1.span.it"], found["resid_post.1.span.said"])
    assert len(found["embed.span.it"]) == 128


def test_the_part_of_a_span_is_its_tokens(tmp_path):
    made = make(config(tmp_path, MARKS, ["span.it", "span.end"]))
    found, texts = read(made), texts_of(target(made, "texts").path)
    marked = [t[low:high] for t, (low, high) in zip(texts.text, texts.parts, strict=True)]
    assert set(marked) == {"y", "n"} and len(marked) == 64
    x = found["embed.span.it"]  # a token is a byte: the vectors are those of two letters
    np.testing.assert_array_equal(x, found["embed.span.end"])
    assert len(np.unique(x, axis=0)) == 2
    assert all((x[i] == x[marked.index(m)]).all() for i, m in enumerate(marked))


@pytest.mark.parametrize("dataset", [TURNS, MARKS], ids=["turns", "spans"])
@pytest.mark.parametrize("share", [False, True])
def test_a_probe_finds_the_label_of_a_part(tmp_path, dataset, share):
    probes = [{"protocol": "actprobe-1", "sources": ["m/embed.span.it"], "methods": ["logreg"]}]
    made = make(config(tmp_path, dataset, probes=probes, model={"share_prefix": share}))
    table = store.read_table(target(made, "probes").path)
    assert min(table["test_score"].to_pylist()) > 0.95  # the letter is in the mean of its bytes
    groups = texts_of(target(made, "texts").path).group
    assert len(set(groups)) == 64


def keys_of(folder, dataset, positions):
    found = experiment.stages(config(folder, dataset, positions), keys.DigestMemo(folder))
    return {t.args.source.removeprefix("m/embed."): t.key
            for t in found["activations"] if t.args.site == "embed"}  # fmt: skip


def test_what_stands_in_the_key(tmp_path, monkeypatch):
    one = keys_of(tmp_path, MARKS, ["last", "span.it", "span.said"])
    original = talks
    monkeypatch.setitem(globals(), "talks", lambda: [
        t | {"marks": [[0, 2, t["marks"][0][2]]]} for t in original()
    ])  # fmt: skip
    other = keys_of(tmp_path, MARKS, ["last", "span.it", "span.said"])
    assert {p for p in one if one[p] != other[p]} == {"span.it"}


def test_labels_of_whole_rows_have_no_part(tmp_path):
    message = (
        r"activations\[0\]: position span.it takes the part of each row that its label is of, and the "
        "labels of dataset d are of whole rows: name other `datasets`, or set `rows: true`"
    )
    for dataset in ({}, {"turns": {"label": "yes"}}, {"spans": "marks"}):
        with pytest.raises(ConfigError, match=message):
            experiment.plan(config(tmp_path, dataset))
