"""Runs on a private SLURM cluster of two virtual nodes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest
import small_saes
import yaml
from project import ROOT, write_dataset

from actprobe.cache.store.journal import units_done
from actprobe.experiment import costs

NOTHING = "Nothing to be done"


def test_the_profile_is_found_as_typed_in_the_repository(cluster, root, tmp_path):
    folders = f"cache_dir={tmp_path}/cache results_dir={tmp_path}/results".split()
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "-n", "-q", "progress"]
    p = subprocess.run(
        [*command, "--config", *folders], cwd=root, env=os.environ | cluster.environment(),
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert p.returncode == 0 and "Using profiles slurm" in p.stdout + p.stderr
    asked = p.stdout.partition("rule activations_minilm_1:")[2]
    assert "runtime=" in asked and "mem_mb=<TBD>" not in asked.partition("rule ")[0]


def minutes(job) -> int:
    return int(job["minutes"].partition(":")[0])


def megabytes(job) -> int:
    return int(job["mb"].removesuffix("M"))


def states(jobs) -> set[str]:
    return {j["state"] for j in jobs}


def cause_trouble(project, kind: str, amount: int) -> None:
    folder = project.folder / "trouble"
    folder.mkdir(exist_ok=True)
    (folder / kind).write_text(str(amount))


def told_threads(project, script: str) -> str:
    return (project.folder / "trouble" / f"{script}.threads").read_text()


def tables(project) -> dict[str, bytes]:
    folder = project.folder / "results" / project.config["experiment"] / "tables"
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_from_empty_cache_to_report_with_the_bytes_of_a_local_run(project, local):
    """Also: files that appear and a config that changes meanwhile do not disturb the plan."""
    project.config["shards"] = {"activations": 2}
    project.config["probes"].append(
        {"protocol": "saeprobes-0.4.2", "sources": ["tiny/*"], "methods": ["knn"],
         "settings": ["imbalance"]}
    )  # fmt: skip
    expected = local()
    run = project.start()
    run.until(lambda: run.jobs("activations_tiny_2"))
    early = expected.cached("probes")[0]
    place = project.folder / early.relative_to(expected.folder)
    place.parent.mkdir(parents=True)
    shutil.copy(early, place)
    (project.folder / "config.yaml").write_text("experiment: other\n")
    run.finish()

    assert project.digests() == expected.digests()
    assert tables(project) == tables(expected)
    shards = run.jobs("activations_tiny")
    assert {j["node"] for j in shards} == set(project.cluster.nodes)
    (group,) = run.jobs("small_probes")  # both settings in one submission
    assert len(run.seen) == 3  # texts, tables, figures and report stayed here
    assert all(j["cpus"] == "3" for j in shards) and group["cpus"] == "4"
    real = len(os.sched_getaffinity(0))  # the nodes claim more cores than this machine may have
    assert told_threads(project, "activations") == str(min(3, real))
    assert told_threads(project, "probes") == str(min(2, real))
    assert all(megabytes(j) >= costs.SMALLEST / 1e6 for j in run.seen.values())
    assert NOTHING in project.snakemake("-n")


@pytest.mark.slow
def test_the_whole_quickstart_with_the_bytes_of_a_local_run(project, local, wheels):
    project.config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    expected = local()
    run = project.start("--cores", "4")  # a node has no more
    run.finish(seconds=3600)
    assert project.digests() == expected.digests()
    assert tables(project) == tables(expected)
    assert NOTHING in project.snakemake("-n")


def test_out_of_time_and_out_of_memory_are_tried_again_with_more(project, local):
    expected = local()
    cause_trouble(project, "activations.seconds", 600)
    cause_trouble(project, "probes.mb", 1100)
    run = project.start("--set-resources", "activations_tiny:runtime=attempt")
    run.finish()
    first, second = run.jobs("activations_tiny")
    assert (first["state"], minutes(first), minutes(second)) == ("TIMEOUT", 1, 2)
    assert megabytes(second) == 2 * megabytes(first)
    first, second = run.jobs("small_probes")
    assert first["state"] in ("OUT_OF_MEMORY", "FAILED")
    assert megabytes(second) == 2 * megabytes(first) and minutes(second) == 2 * minutes(first)
    assert project.digests() == expected.digests()
    assert tables(project) == tables(expected)


def test_a_lost_node_costs_one_retry_that_resumes(project, local):
    write_dataset(project.folder / "long.csv", n=12_000)
    project.config["datasets"] = [{"name": "long", "path": "long.csv"}]
    project.config["models"]["tiny"]["max_tokens_per_batch"] = 64
    project.config["probes"] = []
    expected = local()
    run = project.start()
    part = project.folder / "cache" / "activations" / "tiny" / "long"
    run.until(lambda: [p for p in part.glob("*.part") if done(p) > 10])
    (job,) = run.jobs("activations_tiny")
    project.cluster.crash(job["node"])
    begun = {p.stat().st_ino: done(p) for p in part.glob("*.part")}
    try:
        run.finish()
    finally:
        project.cluster.start_node(job["node"])
    first, second = run.jobs("activations_tiny")
    assert (first["state"], second["state"]) == ("NODE_FAIL", "COMPLETED")
    assert second["node"] != first["node"]
    assert project.digests() == expected.digests()
    assert {p.stat().st_ino for p in project.cached("activations")} == set(begun)  # the same files


def done(part) -> int:
    """Batches that are safely in an activations part."""
    return len(units_done(part))


def test_a_cancelled_run_loses_nothing_that_was_finished(project, local):
    project.config["shards"] = {"activations": 2}
    expected = local()
    cause_trouble(project, "activations.seconds", 600)  # for the first job that finds it
    run = project.start("--retries", "0")
    run.until(lambda: "COMPLETED" in states(run.jobs("activations_tiny")))
    run.until(lambda: "RUNNING" in states(run.jobs("activations_tiny")))
    project.cluster.cancel()
    said = run.finish(ok=False).partition("1 jobs failed:")[2]
    assert "activations_tiny" in said and "CANCELLED" in said
    made = project.snapshot()
    assert project.plan() == {"activations": 2, "probes": 4}
    run = project.start()
    run.finish()
    assert len(run.jobs("activations_tiny")) == 1
    after = project.snapshot()
    assert {k: after[k] for k in made} == made
    assert project.digests() == expected.digests()
    assert tables(project) == tables(expected)


def test_ctrl_c_cancels_the_jobs(project):
    run = project.start()
    run.until(lambda: [j for j in run.jobs("activations_tiny") if j["state"] == "RUNNING"])
    run.process.send_signal(signal.SIGINT)
    run.finish(ok=False)
    assert not project.cluster.jobs("PENDING", "RUNNING")


def test_small_jobs_share_a_submission_that_fits_a_node(project):
    project.config["saes"] = small_saes.save(project.folder, ["one", "two", "three"])
    project.config["threads"]["saes"] = 1
    project.config["probes"] = []
    run = project.start("--resources", "mem_mb=1500", "runtime=60")
    run.finish()
    (group,) = run.jobs("small_latents")
    assert len(project.cached("latents")) == 6
    assert megabytes(group) <= 1500 and minutes(group) == 33  # one after the other


def test_a_broken_sae_fails_its_own_jobs_only(project):
    project.config["saes"] = small_saes.save(project.folder, ["good", "broken"])
    project.config["threads"]["saes"] = 1
    project.config["shards"] = {"latents": 2, "probes": 2}  # jobs of their own, not a group
    project.config["probes"] = [
        {"protocol": "saeprobes-0.4.2-fast", "sources": ["good", "broken"],
         "methods": ["ksparse_b"]}
    ]  # fmt: skip
    run = project.start("--retries", "0")
    run.until(lambda: run.jobs("activations_tiny"))  # planned with a whole file
    os.truncate(project.folder / "broken" / "sae_weights.safetensors", 1000)
    said = run.finish(ok=False).partition("jobs failed:")[2]
    assert "latents_broken_1" in said and "cut short" in said and "good" not in said
    assert len(project.cached("latents/good")) == len(project.cached("probes")) == 2
    assert not project.cached("latents/broken")
