"""Several runs, edits and dry runs at the same time do not disturb each other."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import yaml
from project import Project, write_dataset

PLANS = Path(".snakemake", "actprobe")  # a plan is there when a run has read what is in the cache


def start(project: Project, *args: str) -> subprocess.Popen:
    return subprocess.Popen(
        project.command(*args), cwd=project.folder, env=project.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(path, pattern: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not list(path.glob(pattern)):
        assert time.monotonic() < end, f"{pattern} never appeared"
        time.sleep(0.05)


def test_two_people_share_one_cache(finished, tmp_path, tiny_model):
    people = []
    for name in ("ada", "ben"):
        (tmp_path / name).mkdir()
        project = Project(tmp_path / name, tiny_model)
        project.config["cache_dir"] = str(tmp_path / "shared")
        people.append(project)
    runs = [start(p) for p in people]
    said = [r.communicate()[0] for r in runs]
    assert [r.returncode for r in runs] == [0, 0], "\n".join(said)
    made = {p.name for p in (tmp_path / "shared").rglob("*.*") if p.is_file()}
    assert {p.name for p in finished.cached()} <= made
    assert not any(n.endswith((".part", ".lock", ".bad")) for n in made)
    assert "0 damaged" in people[0].actprobe("verify", str(tmp_path / "shared"))
    tables = [(p.folder / "results/toy/tables/probes.csv").read_bytes() for p in people]
    assert tables[0] == tables[1]


def publish(stage: str, of: Project, to: Project) -> list[Path]:
    """Put the cached files of a finished project into another one's cache, as a run does."""
    found = []
    for path in of.cached(stage):
        target = to.folder / path.relative_to(of.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, f"{target}.copy")
        found.append(Path(f"{target}.copy").rename(target))
    return found


def test_files_that_another_run_made_since_the_plan_are_taken(finished, empty):
    run = start(empty)
    assert any("Execute" in line for line in run.stdout)  # the job is starting
    found = publish("activations", finished, empty)
    inodes = [p.stat().st_ino for p in found]
    said = run.communicate()[0]
    assert run.returncode == 0, said
    assert "activations_tiny: 4 of 4 files were made by another run meanwhile" in said
    assert [p.stat().st_ino for p in found] == inodes
    assert empty.digests() == finished.digests()


def test_a_failed_job_leaves_what_another_run_made(finished, empty):
    empty.add_dataset("c")
    with open(empty.folder / "c.csv", "a") as f:
        f.write("x <s> y,0\ny,1\n")
    empty.config["models"]["tiny"]["special_tokens_in_text"] = "refuse"
    run = start(empty, "activations")
    wait_for(empty.folder / PLANS, "plan-*.json")
    theirs = publish("activations", finished, empty)
    said = run.communicate()[0]
    assert run.returncode == 1, said
    assert "holds the special token '<s>'" in said
    assert len(theirs) == 4 and all(p.exists() for p in theirs)


def test_the_config_edited_and_dry_runs_made_during_a_run(finished, empty):
    run = start(empty)
    wait_for(empty.folder / PLANS, "plan-*.json")
    edited = yaml.safe_load((empty.folder / "config.yaml").read_text())
    edited["activations"][0]["sites"] = ["resid_post.2"]
    (empty.folder / "config.yaml").write_text(yaml.safe_dump(edited))
    for _ in range(2):
        look = ["plan", "--configfile", "config.yaml"]
        assert "resid_post.2" in empty.actprobe(*look, "--json")
    said = run.communicate()[0]
    assert run.returncode == 0, said
    assert empty.digests() == finished.digests()


def test_overrides_on_the_command_line_reach_the_jobs(empty):
    empty.snakemake("texts", "--config", "cache_dir=elsewhere")
    assert not (empty.folder / "cache").exists()
    assert len(list((empty.folder / "elsewhere" / "texts").iterdir())) == 2


def test_names_with_every_legal_character(empty):
    name = "A-b_c.1"
    write_dataset(empty.folder / "x.csv")
    empty.config["datasets"].append({"name": name, "path": "x.csv"})
    empty.snakemake()
    assert name in (empty.folder / "results/toy/tables/probes.csv").read_text()
    assert "Nothing to be done" in empty.snakemake("-n")
