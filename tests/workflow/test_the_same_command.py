"""The same command goes on after a kill; every stage name is a target (fault rows C2 and H)."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest


def start(project, *args) -> subprocess.Popen:
    return subprocess.Popen(
        project.command(*args), cwd=project.folder, env=project.environment(), text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(condition, process, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def is_locked(project) -> bool:
    return any((project.folder / ".snakemake" / "locks").glob("*.output.lock"))


def test_h_after_a_kill_the_same_command_goes_on_and_says_so(finished, empty):
    p = start(empty)
    wait_for(lambda: is_locked(empty), p)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    said = empty.snakemake()
    assert f"unlocked the folder: a run was killed (process {p.pid} on " in said
    assert empty.digests() == finished.digests()
    assert not list((empty.folder / ".snakemake" / "actprobe" / "runs").iterdir())


def test_h_a_run_that_is_alive_is_named(empty):
    p = start(empty)
    try:
        wait_for(lambda: is_locked(empty), p)
        said = empty.snakemake(ok=False)
    finally:
        os.killpg(p.pid, signal.SIGTERM)
        p.communicate()
    assert f"another run is at work in this folder: process {p.pid} on " in said
    assert "started 2" in said and "--unlock" not in said and "Traceback" not in said


def test_h_a_lock_that_is_nobody_elses_business_stays(empty):
    """Of a workflow that is not this one: nothing is known of the process that holds it."""
    locks = empty.folder / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("results/toy/report.html\n")
    assert "--unlock" in empty.snakemake(ok=False)


@pytest.fixture
def half(fork):
    """Probes and one activation file are gone."""
    for p in [*fork.cached("probes"), fork.cached("activations")[0]]:
        p.unlink()
    return fork


@pytest.mark.parametrize("cache", ["empty", "half", "fork"])
def test_c2_stages_and_results_are_targets_of_any_cache(cache, request):
    project = request.getfixturevalue(cache)
    for target in ("texts", "activations", "probes", "figures", "results/toy/report.html"):
        assert "Traceback" not in project.snakemake("-n", target)


@pytest.mark.parametrize("stage", ["latents", "features", "lora_index"])
def test_c2_a_stage_of_which_there_is_nothing_is_refused_by_name(empty, stage):
    said = empty.snakemake("-n", stage, ok=False)
    assert f"actprobe: {stage}: the config asks for none" in said
