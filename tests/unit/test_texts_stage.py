"""The texts stage from plan to artefact."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from texts_inputs import parquet

from actprobe import texts
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import plan, store
from actprobe.config import resolve
from actprobe.texts import wheels
from actprobe.texts.run import run
from actprobe.texts.targets import VERSION

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/texts.json").read_text())

ROWS = "uid,text,label,who\nx,a text,yes,ann\ny,another text,no,bob\nz,a text,no,\n"


def make(cache, entries, on_bad="stop", wheel_entries=None):
    """Plan and run the stage; returns the texts targets."""
    config = resolve(
        {
            "experiment": "e",
            "cache_dir": str(cache),
            "on_bad_dataset": on_bad,
            "wheels": wheel_entries or {},
            "datasets": list(entries),
        }
    )
    sources = texts.wheel_targets(config)
    wanted = texts.targets(config, {"wheels": sources}, keys.DigestMemo(cache))
    planned = plan.make(config, [*sources, *wanted], [t.path for t in wanted])
    for batch in planned.of("wheels"):
        wheels.run(batch, config, 1)
    for batch in planned.of("texts"):
        run(batch, config, 1)
    return wanted


@pytest.fixture
def csv(tmp_path):
    file = tmp_path / "people.csv"
    file.write_text(ROWS)
    return str(file)


def test_a_dataset_is_written_and_loaded(tmp_path, csv):
    (t,) = make(tmp_path / "c", [{"name": "p", "path": csv, "id": "uid", "group": "who"}])
    loaded = texts.load(t.path)
    assert (loaded.dataset, loaded.key, len(loaded)) == ("p", t.key, 3)
    assert loaded.id.tolist() == ["x", "y", "z"]
    assert loaded.text.tolist() == ["a text", "another text", "a text"]
    assert loaded.label is not None and loaded.label.dtype == "int32"
    assert loaded.label.tolist() == [1, 0, 0] and loaded.classes == ("no", "yes")
    assert loaded.group is not None and loaded.group.tolist() == ["ann", "bob", None]
    assert loaded.split is None and loaded.pair is None
    sha = hashlib.sha256(ROWS.encode()).hexdigest()
    assert loaded.facts["provenance"] == {"file": "people.csv", "sha256": sha}
    assert texts.describe([t.path]) == [
        {
            "dataset": "p",
            "n": 3,
            "texts": 2,
            "multiline": 0,
            "sampled_from": None,
            "unfinished": None,
            "classes": {"no": 2, "yes": 1},
            "duplicates": 1,
            "conflicting": 2,
            "provenance": {"file": "people.csv", "sha256": sha},
            "bad": None,
        }
    ]


def test_texts_without_labels_load_without_labels(tmp_path, csv):
    (t,) = make(tmp_path / "c", [{"name": "p", "path": csv, "label": None}])
    loaded = texts.load(t.path)
    assert loaded.label is None and loaded.classes == ()


def test_the_bytes_depend_on_the_content_alone(tmp_path, csv):
    (a,) = make(tmp_path / "c1", [{"name": "p", "path": csv}])
    other = tmp_path / "elsewhere" / "people.csv"
    other.parent.mkdir()
    other.write_text(ROWS)
    (b,) = make(tmp_path / "c2", [{"name": "p", "path": str(other)}])
    assert Path(a.path).read_bytes() == Path(b.path).read_bytes()
    store.verify(a.path)


def test_a_bad_dataset_stops_the_run_and_keeps_the_good_one_as_a_part(tmp_path, csv):
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\na,0\n,1\n")
    entries = [{"name": "good", "path": csv}, {"name": "bad", "path": str(bad)}]
    with pytest.raises(
        ActprobeError, match=r"1 of 2 targets.*\n.*dataset bad, .*row 1 .*: the text"
    ):
        make(tmp_path / "c", entries)
    assert len(list((tmp_path / "c/texts").glob("good.*.parquet.part"))) == 1


def test_a_skipped_dataset_leaves_its_reason(tmp_path, csv):
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\na,0\n,1\n")
    entries = [{"name": "good", "path": csv}, {"name": "bad", "path": str(bad)}]
    good, skipped = make(tmp_path / "c", entries, on_bad="skip")
    assert len(texts.load(good.path)) == 3
    with pytest.raises(
        BadInput, match=r"dataset bad, .*bad.csv: row 1 \(line 3\): the text is empty"
    ):
        texts.load(skipped.path)
    report = texts.describe([good.path, skipped.path])
    assert [r["dataset"] for r in report] == ["good", "bad"]
    assert report[0]["bad"] is None and "row 1" in report[1]["bad"] and report[1]["classes"] == {}


def test_c4_a_file_that_its_reader_cannot_take_leaves_the_other_datasets_alone(tmp_path, csv):
    files = {
        "twice.parquet": parquet(("text", ["a"]), ("text", ["b"]), ("label", [1])),
        "dates.parquet": parquet(("text", ["a"]), ("label", pa.array([2**62], pa.timestamp("us")))),
        "deep.jsonl": b"[" * 100_000,
        "half.json": b'[{"text": "a", "label": "\\ud800"}, {"text": "b", "label": "x"}]',
    }
    entries = [{"name": "good", "path": csv}]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        entries.append({"name": name.partition(".")[0], "path": str(tmp_path / name)})
    good, *bad = make(tmp_path / "c", entries, on_bad="skip")
    assert len(texts.load(good.path)) == 3
    for t, name in zip(bad, files, strict=True):
        with pytest.raises(BadInput, match=rf"^dataset {t.item}, .*{name}: "):
            texts.load(t.path)


def test_a_file_changed_after_planning_is_not_taken(tmp_path, csv, monkeypatch):
    monkeypatch.setattr(keys.DigestMemo, "sha256", lambda *_: "0" * 64)
    with pytest.raises(ActprobeError, match=r"dataset p: .*people.csv was changed after the plan"):
        make(tmp_path / "c", [{"name": "p", "path": csv}])


def digest(loaded, names):
    columns = {n: getattr(loaded, n) for n in names}
    plain = {n: None if c is None else c.tolist() for n, c in columns.items()}
    return keys.spec_key({**plain, "classes": list(loaded.classes) if "label" in names else []})


def test_golden(tmp_path, csv):
    entry = {"name": "p", "path": csv, "id": "uid", "group": "who", "positive": "no"}
    loaded = texts.load(make(tmp_path / "c", [entry])[0].path)
    found = {
        "version": VERSION,
        "table": digest(loaded, ["id", "text", "label", "group", "split", "pair", "digest"]),
        "rows": digest(loaded, ["id", "text"]),
    }
    assert found == GOLDEN["tiny"], (
        "the texts stage gives another output: raise VERSION in texts/targets.py, then put what "
        "was found here into tests/golden/texts.json"
    )


@pytest.mark.skipif("ACTPROBE_WHEELS" not in os.environ, reason="ACTPROBE_WHEELS names no folder")
def test_all_113_sets_of_sae_probes(tmp_path):
    """The prompts are those of pandas.read_csv, the duplicates those counted independently."""
    golden = GOLDEN["sae-probes"]
    wheel = {"package": "sae-probes", "version": "0.4.2", "sha256": golden["wheel"]}
    members = [{"name": m.replace(" ", "_"), "member": m} for m in golden["sets"]]
    path = "wheel:sp/sae_probes/data/cleaned_data/{name}.csv.zst"
    entry = {"names": members, "path": path, "text": "prompt", "label": "target"}
    made = make(tmp_path, [entry], wheel_entries={"sp": wheel | {"members": ["*.csv.zst"]}})
    report = pd.DataFrame(texts.describe([t.path for t in made]))
    assert len(report) == 113 and report["n"].sum() == 334_092
    assert report["duplicates"].tolist() == list(golden["sets"].values())
    assert report["conflicting"].sum() == 186
    assert all(len(set(c.values())) == 1 and len(c) == 2 for c in report["classes"])
    rows = [digest(texts.load(t.path), ["text", "label"]) for t in made]
    assert keys.spec_key({"rows": rows}) == golden["rows"]
