"""Datasets on the hub: what a path means, what is fetched, and what stops it."""

# ruff: noqa: F401, F811

import shutil
from pathlib import Path

import pytest
from hub_server import Fault, git_id, loopback
from texts_inputs import build, configured, parquet

from actprobe import texts
from actprobe.base.errors import ActprobeError, ConfigError, Damaged, Unreachable
from actprobe.cache import store
from actprobe.experiment import targets as experiment
from actprobe.experiment import upkeep
from actprobe.files.hub import asking

REPO = "datasets/org/sets"


def rows(*words):
    return parquet(("text", list(words)), ("label", [i % 2 for i in range(len(words))]))


FILES = {
    "README.md": b"---\nlicense: mit\n---\n# Sets\n",
    "data/train-00000-of-00002.parquet": rows("a", "b"),
    "data/train-00001-of-00002.parquet": rows("c", "d"),
    "data/test-00000-of-00001.parquet": rows("e", "f"),
    "extra/notes.csv": b"text,label\ng,0\nh,1\n",
}
FIGS = b"""---
configs:
- config_name: figs
  data_files:
  - split: train
    path: data/train-*
  - split: late
    path: [data/test-*, data/train-00001*]
- config_name: notes
  data_dir: extra
  data_files: "*.csv"
---
"""


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(asking, "ANSWER", 1.0)
    monkeypatch.setattr(asking, "WHOLE", 2.0)


def read(folder, commit, file="", **entry):
    path = f"hub:org/sets@{commit}" + (f"/{file}" if file else "")
    [t] = build(folder, {"name": "d", "path": path, **entry})
    return t


def words(t):
    return texts.load(t.path).text.tolist()


def hub_files(folder):
    return sorted(p for p in Path(folder).glob("cache/hub/*/*") if p.suffix != ".bad")


def test_a_file_is_fetched_checked_and_kept(tmp_path, loopback):
    commit = loopback.add(REPO, FILES)
    t = read(tmp_path, commit, "data/test-00000-of-00001.parquet")
    assert words(t) == ["e", "f"]
    [raw] = hub_files(tmp_path)
    assert raw.parent.name == "org--sets"
    assert raw.name.startswith("data--test-00000-of-00001.") and raw.suffix == ".parquet"
    assert texts.load(t.path).facts["provenance"] == {
        "hub": "org/sets", "commit": commit, "files": ["data/test-00000-of-00001.parquet"],
    }  # fmt: skip


def test_afterwards_no_hub_is_asked(tmp_path, loopback):
    commit = loopback.add(REPO, FILES)
    t = read(tmp_path, commit, "data/train-*.parquet")
    one = read(tmp_path, commit, "extra/notes.csv")
    loopback.close()
    Path(t.path).unlink()
    again = read(tmp_path, commit, "data/train-*.parquet")
    assert (again.path, words(again)) == (t.path, ["a", "b", "c", "d"])
    shutil.rmtree(tmp_path / "home")  # the hub cache: a dataset that is there needs none
    assert words(read(tmp_path, commit, "extra/notes.csv")) == words(one)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("data/train-*.parquet", ["a", "b", "c", "d"]),
        ("**/train-00001*", ["c", "d"]),
        ("extra/notes.csv", ["g", "h"]),
    ],
)
def test_files_and_patterns(tmp_path, loopback, file, expected):
    assert words(read(tmp_path, loopback.add(REPO, FILES), file)) == expected


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({"split": "train"}, ["a", "b", "c", "d"]), ({"split": "test"}, ["e", "f"])],
)
def test_splits_are_found_by_the_names_of_files(tmp_path, loopback, chosen, expected):
    files = {k: v for k, v in FILES.items() if not k.startswith("extra")}
    assert words(read(tmp_path, loopback.add(REPO, files), hub=chosen)) == expected


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"config": "figs", "split": "train"}, ["a", "b", "c", "d"]),
        ({"config": "figs", "split": "late"}, ["e", "f", "c", "d"]),
        ({"config": "notes", "split": "train"}, ["g", "h"]),
    ],
)
def test_configs_and_splits_are_those_of_the_readme(tmp_path, loopback, chosen, expected):
    commit = loopback.add(REPO, FILES | {"README.md": FIGS})
    assert words(read(tmp_path, commit, hub=chosen)) == expected


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"split": "train"}, "hub.config: the dataset has 2 configs; write one of 'figs', 'notes'"),
        ({"config": "fig", "split": "train"}, "figs"),
        ({"config": "figs", "split": "trian"}, "train"),
    ],
)
def test_what_the_readme_does_not_name_is_refused(tmp_path, loopback, chosen, said):
    commit = loopback.add(REPO, FILES | {"README.md": FIGS})
    with pytest.raises(ConfigError) as e:
        read(tmp_path, commit, hub=chosen)
    assert said in str(e.value)


def test_a_path_without_a_commit_is_refused_with_the_one_to_write(tmp_path, loopback):
    commit = loopback.add(REPO, FILES)
    with pytest.raises(ConfigError) as e:
        build(tmp_path, {"name": "d", "path": "hub:org/sets/extra/notes.csv"})
    assert f"write hub:org/sets@{commit}/extra/notes.csv" in str(e.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("hub:org/sets@{c}/extra/note.csv", "the commit has no file extra/note.csv; "),
        ("hub:org/sets@{c}/extra/*.json", "no file matches 'extra/*.json'; the commit has"),
        ("hub:org/sets@{c}", "the path names no file; add one of"),
        ("hub:org@{c}/x.csv", "is no dataset of the hub; write hub:ORG/NAME@COMMIT/FILE"),
        ("hub:org/sets@{c}/../x.csv", "is no dataset of the hub"),
        ("hub:org/none@{c}/x.csv", "there is no such repository"),
        ("https://huggingface.co/datasets/org/sets/blob/{c}/x.csv",
         "for the hub write path: hub:org/sets@{c}/x.csv"),
    ],
)  # fmt: skip
def test_paths_that_lead_nowhere(tmp_path, loopback, path, said):
    commit = loopback.add(REPO, FILES)
    with pytest.raises((ConfigError, Unreachable)) as e:
        build(tmp_path, {"name": "d", "path": path.replace("{c}", commit)})
    assert said.replace("{c}", commit) in str(e.value)


def test_a_file_that_changed_under_its_pin_is_refused(tmp_path, loopback):
    commit = loopback.add(REPO, FILES)
    name = "data/test-00000-of-00001.parquet"
    loopback.faults.append(Fault("flip", name, times=9, at=40))
    with pytest.raises(ActprobeError) as e:
        read(tmp_path, commit, name)
    assert name in str(e.value)
    assert hub_files(tmp_path) == []
    loopback.reset()
    assert words(read(tmp_path, commit, name)) == ["e", "f"]


def test_a_broken_download_is_resumed(tmp_path, loopback):
    big = rows(*(f"text {i}" * 9 for i in range(40_000)))
    commit = loopback.add(REPO, {"big.parquet": big})
    loopback.faults.append(Fault("cut", "big.parquet", at=len(big) // 2))
    assert len(words(read(tmp_path, commit, "big.parquet"))) == 40_000
    assert loopback.sent["big.parquet"] < 1.5 * len(big)


def test_a_file_damaged_in_the_cache_is_found_and_fetched_anew(tmp_path, loopback):
    commit = loopback.add(REPO, FILES)
    t = read(tmp_path, commit, "extra/notes.csv")
    [raw] = hub_files(tmp_path)
    content = raw.read_bytes()
    raw.unlink()  # the hub cache has a second name of it
    raw.write_bytes(content.replace(b"g", b"G"))
    assert list(upkeep.verify([tmp_path / "cache"]).damaged) == [str(raw)]
    Path(t.path).unlink()
    with pytest.raises(Damaged, match="set aside"):
        read(tmp_path, commit, "extra/notes.csv")
    assert words(read(tmp_path, commit, "extra/notes.csv")) == ["g", "h"]


def test_without_a_network_what_is_not_here_is_named_and_another_dataset_is_made(
    tmp_path, loopback
):
    commit = loopback.add(REPO, FILES)
    loopback.close()
    with pytest.raises(Unreachable, match="dataset d"):
        read(tmp_path, commit, "extra/notes.csv")
    known = experiment.stages(
        configured(tmp_path, {"name": "d", "path": f"hub:org/sets@{commit}/extra/notes.csv"}),
        experiment.DigestMemo(tmp_path / "cache"),
    )
    assert "unreachable" in known["texts"][0].args.place


def test_gc_keeps_files_of_the_hub_that_a_config_wants(tmp_path, loopback):
    commit = loopback.add(REPO, FILES)
    read(tmp_path, commit, "extra/notes.csv")
    entry = {"name": "d", "path": f"hub:org/sets@{commit}/extra/notes.csv"}
    assert upkeep.unwanted([configured(tmp_path, entry)]) == []
    other = {"name": "d", "path": f"hub:org/sets@{commit}/data/test-00000-of-00001.parquet"}
    left = [f.path for f in upkeep.unwanted([configured(tmp_path, other)])]
    assert any("/hub/org--sets/extra--notes." in p for p in left)


def test_small_files_are_known_by_their_git_ids(tmp_path, loopback):
    commit = loopback.add(REPO, FILES)
    read(tmp_path, commit, "extra/notes.csv")
    [raw] = hub_files(tmp_path)
    assert git_id(FILES["extra/notes.csv"]).startswith(raw.suffixes[0].strip("."))
