"""Config sections `wheels` and `datasets` to targets, without reading or fetching anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.config import resolve, section
from actprobe.config.datasets import Format
from actprobe.texts import targets, wheel_source, wheel_targets
from actprobe.texts.records import FileSource
from actprobe.texts.sources import FORMATS

WHEEL = {"package": "some-data", "version": "1.0", "sha256": "ab" * 32, "members": ["d/*.csv"]}


def plan(tmp_path, *entries, wheels=None):
    given = {"experiment": "e", "cache_dir": str(tmp_path / "cache")}
    config = resolve(given | {"wheels": wheels or {}, "datasets": list(entries)})
    known = {"wheels": wheel_targets(config)}
    return targets(config, known, keys.DigestMemo(config["cache_dir"]))


@pytest.fixture
def csv(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("text,label\nx,0\ny,1\n")
    return str(file)


def test_a_local_file_is_known_by_its_content_not_by_its_place(tmp_path, csv):
    (a,) = plan(tmp_path, {"name": "a", "path": csv})
    moved = tmp_path / "moved.csv"
    moved.write_bytes(Path(csv).read_bytes())
    (b,) = plan(tmp_path, {"name": "a", "path": str(moved)})
    assert (a.key, a.path) == (b.key, b.path)
    assert a.path == f"{tmp_path}/cache/texts/a.{a.key[:12]}.parquet"
    assert (a.stage, a.loader, a.item) == ("texts", "texts", "a")
    moved.write_text("text,label\nx,0\nz,1\n")
    (c,) = plan(tmp_path, {"name": "a", "path": str(moved)})
    assert c.key != a.key and c.args.rows != a.args.rows


@pytest.fixture
def people(tmp_path):
    file = tmp_path / "people.csv"
    file.write_text("i,text,other,t,label,g,lang\n1,x,p,u,0,a,en\n2,y,q,v,1,b,en\n3,z,q,w,1,b,de\n")
    return str(file)


@pytest.mark.parametrize(
    "change", [{"label": "other"}, {"group": "g"}, {"positive": 1}, {"id": "i"}]
)
def test_g1_labels_groups_and_ids_are_content_but_no_rows(tmp_path, people, change):
    (a,) = plan(tmp_path, {"name": "a", "path": people})
    (b,) = plan(tmp_path, {"name": "a", "path": people, **change})
    assert a.key != b.key and a.args.rows == b.args.rows
    assert (a.identity == b.identity) == (change == {"positive": 1})  # class 1 anyway


@pytest.mark.parametrize(
    "change", [{"text": "t"}, {"keep": {"lang": "en"}}, {"template": "Say {text}"}]
)
def test_g1_texts_row_filters_and_templates_change_the_rows(tmp_path, people, change):
    (a,) = plan(tmp_path, {"name": "a", "path": people})
    (b,) = plan(tmp_path, {"name": "a", "path": people, **change})
    assert a.key != b.key and a.args.rows != b.args.rows and a.identity != b.identity


def test_g1_a_file_of_another_format_with_one_column_more_has_equal_content(tmp_path, people):
    rows = [{"text": t, "label": y, "more": 1} for t, y in zip("xyz", (0, 1, 1), strict=True)]
    (tmp_path / "people.json").write_text(json.dumps(rows))
    (a,) = plan(tmp_path, {"name": "a", "path": people})
    (b,) = plan(tmp_path, {"name": "b", "path": str(tmp_path / "people.json")})
    assert a.key != b.key and (a.args.rows, a.identity) == (b.args.rows, b.identity)


def test_d15_what_is_wrong_with_a_dataset_is_known_while_planning(tmp_path, people):
    (a,) = plan(tmp_path, {"name": "a", "path": people})
    assert a.args.facts["counts"] == [1, 2] and a.args.bad is None
    (b,) = plan(tmp_path, {"name": "a", "path": people, "label": "nope"})
    assert "no column 'nope'" in b.args.bad
    assert b.args.facts is None and b.args.rows == b.identity == b.key


def test_a_wheel_source_is_planned_without_the_wheel(tmp_path):
    entry = {"names": ["a", {"name": "b_c", "member": "b c"}], "path": "wheel:w/d/{name}.csv"}
    a, b = plan(tmp_path, entry, wheels={"w": WHEEL})
    assert [t.item for t in (a, b)] == ["a", "b_c"]
    assert b.spec.source == FileSource(sha256=WHEEL["sha256"], member="d/b c.csv")
    assert a.inputs == (f"{tmp_path}/cache/wheels/some-data-1.0.abababababab.whl",)


def test_a_wheel_target_is_raw_and_its_key_is_the_sha256(tmp_path):
    (t,) = wheel_targets({"cache_dir": "c", "wheels": {"w": WHEEL}})
    assert t.raw and t.key == WHEEL["sha256"] and t.item == "w"
    assert t.path == "c/wheels/some-data-1.0.abababababab.whl"


def test_wheel_source_may_name_a_folder_that_a_pattern_reaches_into():
    config = {"wheels": {"w": WHEEL}}
    assert wheel_source(config, "wheel:w/d", "model m") == ("w", "d")
    assert wheel_source(config, "some/folder", "model m") is None


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "a", "path": "none.csv"}], r"dataset a: none.csv does not exist"),
        ([{"name": "a", "path": "."}], r"dataset a: . is a folder; expected a file"),
        ([{"name": "a b", "path": "x"}], r"'a b' cannot be a name .* write name: a_b,"),
        ([{"name": "a", "path": "CSV"}] * 2, r"two datasets are called a .* another name"),
        ([{"names": ["a", "b"], "path": "CSV"}], r"2 names share the path .* expected {name}"),
        ([{"name": "a", "path": "wheel:v/d/x.csv"}], r"no wheel 'v' in `wheels`"),
        ([{"name": "a", "path": "wheel:ww/d/x.csv"}], r"did you mean 'w'"),
        ([{"name": "a", "path": "wheel:w/e/x.csv"}], r"matches one of wheels.w.members \(d/\*"),
        ([{"name": "a", "path": "wheel:w/d/x.md"}], r"matches one of wheels.w.members"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, csv, entries, message):
    entries = [{**e, "path": e["path"].replace("CSV", csv)} for e in entries]
    with pytest.raises(ConfigError, match=message):
        plan(tmp_path, *entries, wheels={"w": WHEEL})


def test_the_format_is_read_off_the_path_or_given(tmp_path):
    for name in ("a.csv", "a.TSV.zst", "a.jsonl", "a.parquet", "a.csv.bak"):
        (tmp_path / name).write_bytes(b"")
        entry = {"name": "a", "path": str(tmp_path / name)}
        if name == "a.csv.bak":
            with pytest.raises(ConfigError, match="tells no format; set `format`"):
                plan(tmp_path, entry)
            assert plan(tmp_path, {**entry, "format": "csv"})[0].spec.format == "csv"
        else:
            assert plan(tmp_path, entry)[0].spec.format == name[2:].lower()


def test_equal_filters_have_equal_keys(tmp_path, csv):
    entry = {"name": "a", "path": csv}
    (a,) = plan(tmp_path, {**entry, "keep": {"n": [2, None, 1]}})
    (b,) = plan(tmp_path, {**entry, "keep": {"n": [None, "1", "2"]}})
    assert a.key == b.key


@pytest.mark.parametrize("change", [{"separator": ";"}, {"quotes": True}, {"quotes": False}])
def test_how_a_table_is_written_changes_the_key_where_it_is_said(tmp_path, csv, change):
    (a,) = plan(tmp_path, {"name": "a", "path": csv})
    (b,) = plan(tmp_path, {"name": "a", "path": csv, **change})
    assert a.key != b.key
    assert a.spec.separator is None and a.spec.quotes is None and b.record.items() >= change.items()


@pytest.mark.parametrize(
    ("format", "key"), [("tsv", "separator"), ("json", "separator"), ("parquet", "quotes")]
)
def test_how_a_table_is_written_is_no_question_in_other_formats(tmp_path, csv, format, key):
    entry = {"name": "a", "path": csv, "format": format, key: {"separator": ";"}.get(key, True)}
    with pytest.raises(
        ConfigError, match=f"dataset a: `{key}` is for csv.* the format is {format}"
    ):
        plan(tmp_path, entry)


@pytest.mark.parametrize(
    ("entry", "valid"),
    [
        ({"name": "a", "path": "a.csv"}, True),
        ({"names": ["a", {"name": "b", "member": "B"}], "path": "{name}.csv"}, True),
        ({"name": "a", "names": ["b"], "path": "a.csv"}, False),
        ({"path": "a.csv"}, False),
        ({"name": "a", "path": "a.csv", "txt": "prompt"}, False),
        ({"name": "a", "path": "a.xls", "format": "xls"}, False),
        ({"name": "a", "path": "a.csv", "keep": {"lang": ["en", None]}}, True),
        ({"name": "a", "path": "a.csv", "separator": ";", "quotes": False}, True),
        ({"name": "a", "path": "a.csv", "separator": ";;"}, False),
        ({"name": "a", "path": "a.csv", "separator": '"'}, False),
    ],
)
def test_the_schema_takes_what_the_code_takes(entry, valid):
    if valid:
        assert section("datasets", [entry])
    else:
        with pytest.raises(ConfigError, match=r"datasets\.0"):
            section("datasets", [entry])


def test_every_format_that_can_be_named_can_be_read():
    assert set(get_args(Format)) == {*FORMATS}


def test_planning_imports_nothing_heavy():
    code = (
        "import sys, actprobe.texts.targets;"
        "print({'numpy', 'pandas', 'pyarrow', 'zstandard', 'h5py'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
