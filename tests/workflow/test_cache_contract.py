"""What a user does between two runs, and what is computed again: exactly what must be."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest
import yaml

NOTHING = "Nothing to be done"


def test_a_run_is_complete_and_the_next_one_has_nothing_to_do(fork):
    assert fork.plan() == {}
    assert NOTHING in fork.snakemake("-n")
    report = fork.folder / "results" / "toy" / "report.html"
    assert report.stat().st_size > 10_000
    assert "0 damaged" in fork.actprobe("verify", "cache")


def test_add_a_dataset(fork):
    before = fork.snapshot()
    fork.add_dataset("c")
    assert fork.plan() == {"texts": 1, "activations": 2, "probes": 2}
    fork.snakemake()
    after = fork.snapshot()
    assert {k: after[k] for k in before} == before
    assert all("c" in p.name or "/c/" in str(p) for p in set(after) - set(before))
    assert len(after) == len(before) + 5
    assert NOTHING in fork.snakemake("-n")


def test_add_a_layer(fork):
    before = fork.snapshot()
    fork.config["activations"][0]["sites"].append("resid_post.2")
    assert fork.plan() == {"activations": 2, "probes": 2}
    fork.snakemake()
    after = fork.snapshot()
    assert {k: after[k] for k in before} == before
    assert len(after) == len(before) + 4


def test_another_method_needs_no_activations(fork):
    fork.config["probes"][0]["methods"] = ["logreg", "knn"]
    assert fork.plan() == {"probes": 4}


def test_a_label_change_needs_no_activations(fork):
    fork.config["datasets"][0]["positive"] = "0"
    assert fork.plan() == {"texts": 1, "probes": 2}
    said = fork.snakemake("-n")
    assert 'positive null → "0"' in said


def test_a_changed_text_recomputes_that_dataset_and_says_so(fork):
    file = fork.folder / "a.csv"
    file.write_text(file.read_text().replace("dog", "tree", 1))
    assert fork.plan() == {"texts": 1, "activations": 2, "probes": 2}
    said = fork.snakemake("-n")
    assert "texts changed" in said
    fork.snakemake()
    assert NOTHING in fork.snakemake("-n")


def test_touching_and_copying_change_nothing(fork):
    now = time.time()
    for p in [*fork.cached(), fork.folder / "a.csv"]:
        os.utime(p, (now, now))
    assert fork.plan() == {}


@pytest.mark.parametrize("stage", ["probes", "activations"])
def test_a_deleted_file_comes_back_alone_and_identical(fork, stage):
    before = fork.snapshot()
    lost = fork.cached(stage)[0]
    lost.unlink()
    # Activations that nothing needs now are made when they are asked for, by stage or by name.
    fork.snakemake(*([] if stage == "probes" else [str(lost.relative_to(fork.folder))]))
    after = fork.snapshot()
    changed = {k for k in before if before[k] != after[k]}
    assert changed == {lost.relative_to(fork.folder)}
    assert {k: v[0] for k, v in before.items()} == {k: v[0] for k, v in after.items()}


def test_a_fresh_file_asked_for_by_name_is_said_to_be_there(fork):
    path = str(fork.cached("activations")[0].relative_to(fork.folder))
    assert "there already" in fork.snakemake(path)


def test_a_damaged_file_is_set_aside_and_remade(fork):
    before = fork.digests()
    victim = fork.cached("probes")[0]
    victim.write_bytes(victim.read_bytes()[:-10])
    assert "damaged" in fork.snakemake("-n")
    assert not victim.with_name(victim.name + ".bad").exists()
    fork.snakemake()
    assert victim.with_name(victim.name + ".bad").exists()
    victim.with_name(victim.name + ".bad").unlink()
    assert fork.digests() == before


def test_plan_all_shows_the_whole_graph_and_is_refused_in_a_plain_run(fork):
    graph = fork.snakemake("--rulegraph", "--config", "plan=all")
    assert all(s in graph for s in ("texts_texts", "activations_tiny", "probes_", "report"))
    assert "plain run" in fork.snakemake("--config", "plan=all", ok=False)


def test_report_of_snakemake(fork):
    fork.snakemake("--report", "snakemake-report.html")
    assert (fork.folder / "snakemake-report.html").stat().st_size > 100_000


def test_gc_lists_and_deletes_what_no_config_wants(fork):
    fork.config["activations"][0]["sites"] = ["resid_post.0"]
    (fork.folder / "config.yaml").write_text(yaml.safe_dump(fork.config))
    before = fork.snapshot()
    listed = fork.actprobe("gc", "--configfile", "config.yaml")
    assert "\n4 files" in listed and "Nothing is deleted" in listed
    assert fork.snapshot() == before
    fork.actprobe("gc", "--configfile", "config.yaml", "--delete")
    left = fork.snapshot()
    assert len(left) == len(before) - 4 and not any("resid_post.1" in str(p) for p in left)
    assert fork.plan() == {}


def kill_whole_run(project, after: float) -> bool:
    """Start a run and SIGKILL its whole process group; False when it had ended before."""
    p = subprocess.Popen(
        project.command(), cwd=project.folder, env=project.environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        p.wait(after)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()
        return True


def test_parts_that_grow_in_scratch_end_as_the_same_files(finished, empty, monkeypatch):
    disk = empty.folder / "disk"
    monkeypatch.setenv("NODE_DISK", str(disk))
    empty.config["scratch"] = "$NODE_DISK"
    empty.snakemake()
    assert empty.digests() == finished.digests()
    assert disk.is_dir() and not list(disk.iterdir())


@pytest.mark.slow
def test_kill_9_at_ten_random_moments_ends_bit_identical(finished, empty):
    rng = random.Random(0)
    for _ in range(10):
        kill_whole_run(empty, rng.uniform(2, 14))
        empty.snakemake("--unlock")
        assert not any(p.suffix == ".bad" for p in empty.cached())
    empty.snakemake()
    assert empty.digests() == finished.digests()
    assert NOTHING in empty.snakemake("-n")


def test_a_killed_run_is_resumed(finished, empty):
    assert kill_whole_run(empty, 9)
    empty.snakemake("--unlock")
    empty.snakemake()
    assert empty.digests() == finished.digests()
