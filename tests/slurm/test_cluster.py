"""Runs on a private SLURM cluster of two virtual nodes."""

from __future__ import annotations

import shutil
import signal

import pytest
from project import write_dataset

from actprobe import costs

NOTHING = "Nothing to be done"


def minutes(job) -> int:
    return int(job["minutes"].partition(":")[0])


def megabytes(job) -> int:
    return int(job["mb"].removesuffix("M"))


def tables(project) -> dict[str, bytes]:
    folder = project.folder / "results" / "toy" / "tables"
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
    assert all(megabytes(j) >= costs.SMALLEST / 1e6 for j in run.seen.values())
    assert NOTHING in project.snakemake("-n")


def test_out_of_time_and_out_of_memory_are_tried_again_with_more(project, local):
    expected = local()
    trouble = project.folder / "trouble"
    trouble.mkdir()
    (trouble / "activations.seconds").write_text("600")
    (trouble / "probes.mb").write_text("1100")
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
    write_dataset(project.folder / "long.csv", n=20_000)
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
    import h5py

    try:
        with h5py.File(part, "r", locking=False) as f:
            return int(f["done"][:].sum())
    except (OSError, KeyError):
        return 0


def test_cancelled_jobs_lose_nothing_that_was_finished(project, local):
    project.config["shards"] = {"activations": 2}
    expected = local()
    trouble = project.folder / "trouble"
    trouble.mkdir()
    (trouble / "probes.seconds").write_text("600")
    run = project.start("--retries", "0")
    run.until(lambda: [j for j in run.jobs("small_probes") if j["state"] == "RUNNING"])
    made = project.snapshot()
    project.cluster.run("scancel", run.jobs("small_probes")[0]["id"])
    assert "CANCELLED" in run.finish(ok=False)
    assert project.plan() == {"probes": 4}
    run = project.start()
    run.finish()
    assert not run.jobs("activations")
    after = project.snapshot()
    assert {k: after[k] for k in made} == made
    assert project.digests() == expected.digests()


def test_ctrl_c_cancels_the_jobs(project):
    run = project.start()
    run.until(lambda: [j for j in run.jobs("activations_tiny") if j["state"] == "RUNNING"])
    run.process.send_signal(signal.SIGINT)
    run.finish(ok=False)
    assert not project.cluster.jobs("PENDING", "RUNNING")


def test_a_broken_sae_fails_its_own_jobs_only(project):
    np = pytest.importorskip("numpy")
    from safetensors.numpy import save_file

    for name in ("good", "broken"):
        rng, folder = np.random.default_rng(0), project.folder / name
        folder.mkdir()
        weights = {"W_enc": rng.standard_normal((16, 64)), "W_dec": rng.standard_normal((64, 16)),
                   "b_enc": np.zeros(64), "b_dec": np.zeros(16)}  # fmt: skip
        if name == "broken":
            weights["W_enc"][3] = np.nan
        save_file(
            {k: v.astype("f4") for k, v in weights.items()}, folder / "sae_weights.safetensors"
        )
        (folder / "cfg.json").write_text(
            '{"architecture": "standard", "d_in": 16, "d_sae": 64, "dtype": "float32",'
            ' "metadata": {"sae_lens_version": "6.5.0"}}'
        )
    project.config["activations"][0]["sites"] = ["resid_post.1"]
    project.config["saes"] = {
        name: {"source": name, "model": "tiny", "site": "resid_post.1"}
        for name in ("good", "broken")
    }
    project.config["shards"] = {"latents": 2, "probes": 2}  # jobs of their own, not a group
    project.config["probes"] = [
        {"protocol": "saeprobes-0.4.2-fast", "sources": ["good", "broken"],
         "methods": ["ksparse_b"]}
    ]  # fmt: skip
    run = project.start("--retries", "0")
    said = run.finish(ok=False)
    assert "latents_broken" in said and "broken" in said.split("Exiting")[-1]
    assert len(project.cached("latents/good")) == len(project.cached("probes")) == 2
    assert not project.cached("latents/broken")
