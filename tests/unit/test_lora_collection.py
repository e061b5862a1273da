"""Collections: which files there are, how they are called, and how they are cut into shards."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from lora_tools import write_lora

from actprobe.base.errors import ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.lora import collection


def _members(files, **options) -> dict[str, collection.Member]:
    return {m.id: m for m in collection.members("c", {"files": files, **options})}


def test_ids_are_paths_below_the_folder_and_common_names_give_way_to_folders(
    tmp_path: Path,
) -> None:
    write_lora(tmp_path / "cat" / "07.safetensors")
    write_lora(tmp_path / "dog" / "03" / "pytorch_lora_weights.safetensors")
    write_lora(tmp_path / "peft" / "adapter_model.safetensors")
    (tmp_path / "peft" / "adapter_config.json").write_text("{}")
    (tmp_path / "cat" / "notes.txt").write_text("no LoRA")
    found = _members(str(tmp_path))
    assert sorted(found) == ["cat/07", "dog/03", "peft"]
    assert found["peft"].config == f"{tmp_path}/peft/adapter_config.json"
    assert found["cat/07"].config is None


def test_globs_and_lists(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/1"):
        write_lora(tmp_path / f"{name}.safetensors")
    assert sorted(_members(f"{tmp_path}/*/1.safetensors")) == ["a/1", "b/1"]
    with pytest.raises(ConfigError, match="both named '1'"):
        _members([f"{tmp_path}/a", f"{tmp_path}/b"])
    with pytest.raises(ConfigError, match=r"loras\.c\.files: no \.safetensors file"):
        _members(f"{tmp_path}/nowhere/*")


def test_every_item_names_files_and_a_pattern_may_match_folders(tmp_path: Path) -> None:
    for name in ("a/x/1", "a/x/pytorch_lora_weights", "a/2"):
        write_lora(tmp_path / f"{name}.safetensors")
    (tmp_path / "a" / "labels.csv").write_text("id,label\n")
    below = _members(f"{tmp_path}/a")
    assert sorted(below) == ["2", "x", "x/1"]
    for pattern in ("a/*", "a/**", "a/**/*"):
        assert _members(f"{tmp_path}/{pattern}") == below, pattern
    for missing in (f"{tmp_path}/b", f"{tmp_path}/a/*.csv", f"{tmp_path}/c.safetensors"):
        with pytest.raises(ConfigError, match=f"no .safetensors file in {re.escape(missing)}$"):
            _members([f"{tmp_path}/a", missing])
    with pytest.raises(ConfigError, match=r"loras\.c\.files: an empty list"):
        _members([])


def test_a_shard_depends_on_the_files_in_it_alone() -> None:
    def cut(ids: list[str]) -> dict[str, list[str]]:
        members = sorted((collection.Member(i, i) for i in ids), key=lambda m: m.place)
        shards = collection.shards([m.place for m in members], 8)
        assert sum(s.stop - s.start for s in shards.values()) == len(ids)
        return {n: [m.id for m in members[s]] for n, s in shards.items()}

    before = cut([f"l{i}" for i in range(50)])
    assert all(0 < len(ids) <= 8 for ids in before.values()) and len(before) < 20
    after = cut([f"l{i}" for i in range(51)])
    changed = [n for n in before if after.get(n) != before[n]]
    assert len(changed) == 1, "one new file changes one shard"
    assert list(cut(["only"])) == ["all"]


def test_digests_see_content_or_time_and_the_config_beside_a_file(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "x" / "adapter_model.safetensors")
    memo = DigestMemo(tmp_path / "cache")

    def digest(identity: str) -> str:
        found = collection.members("c", {"files": str(tmp_path)})
        return collection.digests(found, identity, memo)[0]

    content, stat = digest("content"), digest("stat")
    write_lora(path, seed=1)
    os.utime(path, (0, 0))  # not in the same tick of the file system's clock
    assert digest("content") != content and digest("stat") != stat
    again = digest("content")
    (tmp_path / "x" / "adapter_config.json").write_text('{"lora_alpha": 1}')
    assert digest("content") != again, "the scale stands in adapter_config.json"


def test_label_tables(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("id,label,subject\na,cat,1\nb,,2\n")
    options = {"labels": str(table), "id": "id"}
    assert collection.labels("c", options, ["label"]) == {"a": ["cat"], "b": [""]}
    with pytest.raises(ConfigError, match="no column 'species'; it has id, label, subject"):
        collection.labels("c", options, ["species"])
    table.write_text("id,label\na,cat\na,dog\n")
    with pytest.raises(ConfigError, match="two rows for 'a'"):
        collection.labels("c", options, ["label"])
    with pytest.raises(ConfigError, match=r"loras\.c\.labels: a table of labels"):
        collection.labels("c", {"labels": None}, ["label"])
    (tmp_path / "labels.tsv").write_text("id\tlabel\na\tcat\n")
    options = {"labels": str(tmp_path / "labels.tsv"), "id": "id"}
    assert collection.labels("c", options, ["label"]) == {"a": ["cat"]}
