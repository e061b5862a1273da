"""The command line tells its user what is wrong, and works without Snakemake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from actprobe.cli import main


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("text,label\nx,0\ny,1\n")
    config = {"experiment": "e", "datasets": [{"name": "a", "path": "a.csv"}]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_plan_as_table_and_json(project, capsys):
    assert main(["plan", "--configfile", "c.yaml"]) == 0
    assert "1 cached files to make in 1 jobs" in capsys.readouterr().out
    assert main(["plan", "--configfile", "c.yaml", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [s["status"] for s in plan["pending"].values()] == ["missing"]


def test_plan_changes_nothing(project):
    before = sorted(project.rglob("*"))
    main(["plan", "--configfile", "c.yaml"])
    made = {p.name for p in set(project.rglob("*")) - set(before)}
    assert made <= {"cache", "digests.json"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--configfile", "gone.yaml"], "no config file gone.yaml"),
        (["plan", "--configfile", "c.yaml", "--config", "x"], "expected KEY=VALUE"),
        (["plan", "--configfile", "c.yaml", "--config", "max_memory=lots"], "expected a size"),
        (["plan", "--configfile", "c.yaml", "--config", "dataset=[]"], "did you mean 'datasets'?"),
        (["results", "--configfile", "c.yaml"], "run snakemake first"),
    ],
)
def test_errors_are_messages(project, capsys, arguments, said):
    assert main(arguments) == 1
    assert said in capsys.readouterr().err


def test_verify_names_a_damaged_file_and_sets_it_aside(project, capsys):
    from actprobe.base import keys
    from actprobe.cache import store

    spec = {"stage": "s"}
    path = project / "cache" / f"t.{keys.short(keys.spec_key(spec))}.bin"
    path.parent.mkdir()
    path.write_bytes(store.make_header(spec) + b"data")
    store.seal(path)
    assert main(["verify", "cache"]) == 0
    path.write_bytes(path.read_bytes()[:-1] + b"A")
    assert main(["verify", "cache"]) == 1
    assert "damaged" in capsys.readouterr().out and path.exists()
    assert main(["verify", "cache", "--set-aside"]) == 1
    assert not path.exists()


def test_gc_lists_what_killed_processes_left_beside_a_finished_file(tmp_path, monkeypatch):
    from actprobe.cache import store
    from actprobe.config import resolve
    from actprobe.experiment import upkeep

    wanted = tmp_path / "cache" / "texts" / "a.0123456789ab.parquet"
    begun = tmp_path / "cache" / "texts" / "b.0123456789ab.parquet"
    left = Path(f"{wanted}.node-abc.part")
    for path in (wanted, left, store.part_path(begun)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    target = type("T", (), {})
    made = [type("T", (target,), {"path": str(p)}) for p in (wanted, begun)]
    monkeypatch.setattr(upkeep.experiment, "stages", lambda *_: {"texts": made})
    (found,) = upkeep.unwanted([resolve({"experiment": "e", "cache_dir": str(tmp_path / "cache")})])
    assert (found.path, found.size, found.group) == (str(left), 1, str(left.parent))
    assert found.written == left.stat().st_mtime and found.owner


def test_gc_keeps_the_parts_of_live_processes(tmp_path):
    from actprobe.cache import store
    from actprobe.experiment import upkeep

    path = tmp_path / "a.0123456789ab.h5"
    part = store.claim(path)
    for name in (part, f"{part}.new"):
        Path(name).write_bytes(b"x")
    assert upkeep.delete([str(part), f"{part}.new"]) == [str(part), f"{part}.new"]
    store.release(part)
    assert upkeep.delete([str(part), f"{part}.new"]) == [] and not part.exists()


def test_h_gc_says_how_many_how_old_and_whose(project, capsys):
    folder = project / "cache" / "activations" / "old" / "a"
    folder.mkdir(parents=True)
    for i in range(5):
        (folder / f"x{i}.0123456789ab.h5").write_bytes(b"x" * 10**6)
    assert main(["gc", "--configfile", "c.yaml"]) == 0
    said = capsys.readouterr().out
    head = next(line for line in said.splitlines() if "activations/old/a/" in line)
    assert "5.00 MB" in head and "5 files" in head and "20" in head
    assert said.count(".h5") == 3 and "and 2 more" in said
    assert "Nothing is deleted without --delete" in said and len(list(folder.iterdir())) == 5
    main(["gc", "--configfile", "c.yaml", "--all"])
    assert capsys.readouterr().out.count(".h5") == 5
