"""How a batch lands: all or nothing under `stop`, tombstones under `skip`."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import jobs, plan, store
from actprobe.cache.jobs import Outcome
from actprobe.cache.plan import Batch, target
from actprobe.cache.store import files


@pytest.fixture
def batch(tmp_path) -> Batch:
    ts = [target(tmp_path, "s", 1, d, {"d": d}, loader="m", item=d) for d in "abc"]
    return Batch("s_m", "s", "m", tuple(ts))


def run(batch: Batch, on_bad: str, bad: str = "") -> None:
    with Outcome(batch, on_bad, store.write_bad) as out:
        for t in batch.targets:
            with out.guard(t):
                if t.item == bad:
                    raise BadInput(f"{t.item}: one class only")
                out.done(t, store.write_h5(t.path, {"x": np.zeros(2)}, t.record))


def test_a_good_batch_is_published(batch):
    run(batch, "stop")
    assert all(store.verify(p)["bad"] is None for p in batch.outputs)


def test_stop_publishes_nothing_and_keeps_what_was_finished(batch):
    with pytest.raises(ActprobeError, match=r"1 of 3 targets cannot be made:\n  b: one class only"):
        run(batch, "stop", bad="b")
    assert not any(Path(p).exists() for p in batch.outputs)
    kept = [t.item for t in batch.targets if store.finished_part(t.path, t.key)]
    assert kept == ["a", "c"]


def test_skip_leaves_a_tombstone_with_the_reason(batch):
    run(batch, "skip", bad="b")
    reasons = [store.verify(p)["bad"] for p in batch.outputs]
    assert reasons == [None, "b: one class only", None]


def test_a_forgotten_target_is_an_error(batch):
    with (
        pytest.raises(ActprobeError, match="no result for"),
        Outcome(batch, "stop", store.write_bad),
    ):
        pass


def finish(*targets: plan.Target) -> None:
    for t in targets:
        store.write_h5(t.path, {"x": np.zeros(2)}, t.record)


def test_sealed_parts_of_an_earlier_run_are_not_made_again(batch):
    a, b, c = batch.targets
    finish(a)
    with Outcome(batch, "stop", store.write_bad) as out:
        assert out.todo() == [b, c]
        finish(b, c)
        assert out.todo() == []
    assert all(store.verify(p) for p in batch.outputs)


@pytest.mark.parametrize("on_bad", ["skip", "stop"])
def test_a_tombstone_that_a_killed_run_left_is_taken_when_skipping_only(batch, on_bad):
    a, b, c = batch.targets
    store.write_bad(a.path, a.record, "one class only")
    finish(b, c)
    stopped = pytest.raises(ActprobeError, match="one class only")
    with (
        stopped if on_bad == "stop" else contextlib.nullcontext(),
        Outcome(batch, on_bad, store.write_bad) as out,
    ):
        assert out.todo() == []
    assert Path(a.path).exists() == (on_bad == "skip")


@pytest.mark.parametrize("hold", [False, True])
def test_locks_of_what_is_to_do_are_kept_where_the_stage_wants_it(batch, monkeypatch, hold):
    with contextlib.suppress(ActprobeError), Outcome(batch, "stop", store.write_bad) as out:
        out.todo(hold)
        with monkeypatch.context() as another_process:
            another_process.setattr(files, "_claims", {})
            another_process.setattr(files, "_private", {})
            parts = [store.claim(p) for p in batch.outputs]
            for part in parts:
                store.release(part)
    assert [part == store.part_path(p) for part, p in zip(parts, batch.outputs, strict=True)] == [
        not hold
    ] * 3
    assert not list(Path(batch.outputs[0]).parent.iterdir()), "no lock file is left"


@pytest.fixture
def frozen(batch, tmp_path, monkeypatch):
    def make(**config) -> str:
        config = {"max_memory": 10**9} | config
        planned = plan.make(config, batch.targets, batch.outputs, config.get("plan") == "all")
        monkeypatch.setenv(jobs.PLAN_VARIABLE, str(plan.freeze(planned, tmp_path)))
        return planned.batches[0].outputs[0]

    return make


def publish(t: plan.Target) -> None:
    finish(t)
    store.publish([t.path])


def test_what_another_run_made_since_the_plan_is_left_out(batch, frozen):
    output, (a, b, c) = frozen(), batch.targets
    publish(a)
    store.publish([b.path], [store.write_bad(b.path, b.record, "one class only")])
    left = {t.path for t in jobs.load(output)[0].targets}
    assert left == {b.path, c.path}, "a tombstone is for this run to judge"
    publish(b)
    publish(c)
    with pytest.raises(SystemExit) as end:
        jobs.load(output)
    assert end.value.code == 0


def test_plan_all_makes_again_what_is_there(batch, frozen):
    publish(batch.targets[0])
    output = frozen(plan="all")
    assert len(jobs.load(output)[0].targets) == 3


@pytest.mark.parametrize(("inside", "limit"), [(False, 2 * 10**9), (True, 600 * 10**6)])
def test_memory_is_what_an_allocation_gives_and_else_what_the_config_says(
    batch, tmp_path, monkeypatch, inside, limit
):
    planned = plan.make({"max_memory": 2 * 10**9}, batch.targets, batch.outputs)
    monkeypatch.setenv(jobs.PLAN_VARIABLE, str(plan.freeze(planned, tmp_path)))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if inside:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    found, config = jobs.load(batch.outputs[0], 900)
    assert config["max_memory"] == limit
    assert [t.path for t in found.targets] == sorted(batch.outputs)


def test_scratch_is_a_folder_of_the_machine_that_the_job_runs_on(batch, tmp_path, monkeypatch):
    planned = plan.make(
        {"max_memory": 2 * 10**9, "scratch": "$NODE/parts"}, batch.targets, batch.outputs
    )
    monkeypatch.setenv(jobs.PLAN_VARIABLE, str(plan.freeze(planned, tmp_path)))
    monkeypatch.delenv("NODE", raising=False)
    with pytest.raises(ActprobeError, match=r"scratch: .*variable that is not set"):
        jobs.load(batch.outputs[0])
    monkeypatch.setenv("NODE", str(tmp_path / "disk"))
    try:
        found, _ = jobs.load(batch.outputs[0])
        t = found.targets[0]
        with store.Part(t.path, t.spec, {"x": ((1,), "f4")}) as part:
            assert part.work.parent == tmp_path / "disk" / "parts"
    finally:
        store.use_scratch(None)
