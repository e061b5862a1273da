"""How a batch lands: all or nothing under `stop`, tombstones under `skip`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actprobe import jobs, plan, store
from actprobe.errors import ActprobeError, BadInput
from actprobe.jobs import Outcome
from actprobe.plan import Batch, target


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
                out.done(t, store.write_h5(t.path, {"x": np.zeros(2)}, t.spec))


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


@pytest.mark.parametrize(("inside", "limit"), [(False, 2 * 10**9), (True, 600 * 10**6)])
def test_memory_is_what_an_allocation_gives_and_else_what_the_config_says(
    batch, tmp_path, monkeypatch, inside, limit
):
    planned = plan.make({"max_memory": 2 * 10**9}, batch.targets, batch.outputs)
    monkeypatch.setenv(jobs.PLAN_VARIABLE, str(plan.freeze(planned, tmp_path)))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if inside:
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    found, config = jobs.load(planned.batches[0].rule, 900)
    assert config["max_memory"] == limit
    assert [t.path for t in found.targets] == sorted(batch.outputs)


def test_scratch_is_a_folder_of_the_machine_that_the_job_runs_on(batch, tmp_path, monkeypatch):
    planned = plan.make(
        {"max_memory": 2 * 10**9, "scratch": "$NODE/parts"}, batch.targets, batch.outputs
    )
    monkeypatch.setenv(jobs.PLAN_VARIABLE, str(plan.freeze(planned, tmp_path)))
    monkeypatch.delenv("NODE", raising=False)
    with pytest.raises(ActprobeError, match=r"scratch: .*variable that is not set"):
        jobs.load(planned.batches[0].rule)
    monkeypatch.setenv("NODE", str(tmp_path / "disk"))
    try:
        found, _ = jobs.load(planned.batches[0].rule)
        t = found.targets[0]
        with store.Part(t.path, t.spec, {"x": ((1,), "f4")}) as part:
            assert part.work.parent == tmp_path / "disk" / "parts"
    finally:
        store.use_scratch(None)
