"""The walk stops at what is there, batches are deterministic, stale files say what changed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from actprobe.base.errors import ActprobeError, ConfigError
from actprobe.cache import plan, store
from actprobe.cache.plan import Target, target
from actprobe.experiment import session, words

LAYERS = (0, 1)


class World:
    """Datasets -> activations of one model -> one probe per dataset and layer."""

    def __init__(self, cache: Path, datasets=("a", "b"), revision="r1", grid="g1", version=1):
        self.cache = cache
        self.texts = {
            d: target(cache, "texts", 1, d, {"sha256": d}, loader="texts", item=d) for d in datasets
        }
        self.acts = {
            (d, layer): target(
                cache, "activations", version, f"m/{d}/resid_post.{layer}.mean",
                {"model": {"revision": revision}, "texts": t.key, "site": f"resid_post.{layer}"},
                loader="m", item=d, inputs=[t],
            )
            for d, t in self.texts.items() for layer in LAYERS
        }  # fmt: skip
        self.probes = {
            k: target(
                cache, "probes", 1, f"p/{k[1]}/{k[0]}", {"grid": grid, "activations": a.key},
                loader="p", item=k[0], inputs=[a, self.texts[k[0]]],
            )
            for k, a in self.acts.items()
        }  # fmt: skip

    @property
    def all(self) -> list[Target]:
        return [*self.texts.values(), *self.acts.values(), *self.probes.values()]

    def plan(self, everything=False, wanted=None, **config) -> plan.Plan:
        leaves = wanted or [t.path for t in self.probes.values()]
        return plan.make(config, self.all, leaves, everything)


def make(targets) -> None:
    """Stand-in for the stages: write each target's artefact."""
    for t in targets:
        store.publish([t.path], [store.write_h5(t.path, {"x": np.zeros(3)}, t.record)])


def counts(p: plan.Plan) -> dict[str, int]:
    return {s: sum(len(b.targets) for b in p.of(s)) for s in ("texts", "activations", "probes")}


def run(p: plan.Plan) -> None:
    for b in p.batches:
        make(b.targets)


@pytest.fixture
def world(tmp_path) -> World:
    w = World(tmp_path)
    run(w.plan())
    return w


def test_fresh_cache_needs_everything_in_one_job_per_loader(tmp_path):
    p = World(tmp_path).plan()
    assert counts(p) == {"texts": 2, "activations": 4, "probes": 4}
    assert [b.rule for b in p.batches] == ["activations_m", "probes_p", "texts_texts"]


def test_lists_of_files_are_told_by_what_came_and_went(tmp_path):
    def trained(*tokens: str) -> Target:
        return target(tmp_path, "saes", 1, "s", {"tokens": list(tokens)}, loader="s", item="s")

    old, new = trained("a" * 64, "b" * 64), trained("a" * 64, "c" * 64, "d" * 64)
    store.publish([old.path], [store.write_h5(old.path, {"x": np.zeros(1)}, old.record)])
    assert plan.explain(new, old.path) == "tokens: 2 new, 1 gone, of 2"
    turned = trained("b" * 64, "a" * 64)
    assert plan.explain(turned, old.path) == "tokens: the same in another order"


def test_a_name_that_means_two_things_is_refused_where_it_is_read(tmp_path):
    def span(chars: int) -> Target:
        args = {"source": "m/resid_post.1.span.q"}
        return target(
            tmp_path, "activations", 1, "q", {"c": chars}, loader="m", item="d", args=args
        )

    assert plan.only([span(5), span(5)], "probes[0]") == span(5)
    with pytest.raises(
        ConfigError, match=r"probes\[0\]: m/resid_post.1.span.q of d means different"
    ):
        plan.only([span(5), span(6)], "probes[0]")


def test_complete_cache_needs_nothing(world):
    p = world.plan()
    assert not p.pending and not p.batches
    assert words.table(p) == "plan: all 10 cached files are there, nothing to compute"


def test_adding_a_dataset_makes_that_dataset_alone(world):
    p = World(world.cache, ("a", "b", "c")).plan()
    assert counts(p) == {"texts": 1, "activations": 2, "probes": 2}
    assert all(t.item == "c" for b in p.batches for t in b.targets)


def test_deleted_intermediates_cost_nothing_until_needed(world):
    for t in world.acts.values():
        Path(t.path).unlink()
    assert not world.plan().pending

    Path(world.probes["a", 0].path).unlink()
    assert counts(world.plan()) == {"texts": 0, "activations": 1, "probes": 1}


def test_a_deleted_file_that_is_asked_for_comes_back_alone(world):
    lost = world.acts["a", 1]
    Path(lost.path).unlink()
    p = world.plan(wanted=[lost.path])
    assert list(p.pending) == [lost.path]


def test_a_changed_probe_parameter_needs_no_activations(world):
    assert counts(World(world.cache, grid="g2").plan()) == {
        "texts": 0, "activations": 0, "probes": 4,
    }  # fmt: skip


def test_going_back_to_an_earlier_setting_costs_nothing(world):
    run(World(world.cache, grid="g2").plan())
    assert not world.plan().pending


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"revision": "r2"}, 'model.revision "r1" → "r2"'),
        ({"version": 2}, "stage version 1 → 2"),
    ],
)
def test_stale_files_say_what_changed(world, change, said):
    p = World(world.cache, **change).plan()
    assert said in words.table(p)
    row = next(r for r in words.summary(p) if r["stage"] == "activations")
    assert row["stale"] == row["to_make"] == 4
    probe = next(s for path, s in p.pending.items() if "/probes/" in path)
    assert probe.status == "stale" and probe.why == "activations changed"


def test_a_truncated_file_that_is_needed_is_damaged_and_remade(world):
    act, probe = world.acts["a", 0], world.probes["a", 0]
    Path(probe.path).unlink()
    Path(act.path).write_bytes(Path(act.path).read_bytes()[:-5])
    p = world.plan()
    assert p.pending[act.path].status == plan.DAMAGED
    plan.take_over(p)
    assert Path(act.path + ".bad").exists()


def test_finished_parts_are_taken_over_without_their_inputs(world):
    act, probe = world.acts["a", 0], world.probes["a", 0]
    store.release(store.write_h5(probe.path + "x", {"x": np.zeros(1)}, {}))
    Path(probe.path).rename(store.part_path(probe.path))
    Path(act.path).unlink()
    p = world.plan()
    assert counts(p) == {"texts": 0, "activations": 0, "probes": 1}
    assert p.batches[0].inputs == ()
    assert "only to be put in place" in words.table(p)
    assert plan.take_over(p) == 1
    assert not world.plan().pending


def test_a_part_held_by_a_live_process_is_not_taken_over(world, monkeypatch):
    probe = world.probes["a", 0]
    Path(probe.path).rename(store.part_path(probe.path))
    store.claim(probe.path)
    monkeypatch.setattr(store.files, "_claims", {})
    assert plan.take_over(world.plan()) == 0
    assert store.part_path(probe.path).exists()
    assert not list(Path(probe.path).parent.glob("*-*.part*")), "no private part is left"


def test_private_parts_that_a_killed_run_finished_are_taken_over(world):
    probe, other = world.probes["a", 0], world.probes["b", 0]
    Path(probe.path).rename(f"{probe.path}.node-1-abc.part")
    Path(other.path).rename(f"{other.path}.node-1-abc.part")
    Path(f"{other.path}.node-1-abc.part").write_bytes(b"half")
    assert plan.take_over(world.plan()) == 1
    assert counts(world.plan()) == {"texts": 0, "activations": 0, "probes": 1}
    assert not list(Path(other.path).parent.glob("*.part*"))


def test_a_damaged_file_that_another_run_made_anew_stays(world):
    act, content = world.acts["a", 0], Path(world.acts["a", 0].path).read_bytes()
    Path(act.path).write_bytes(content[:100])
    Path(world.probes["a", 0].path).unlink()
    p = world.plan()
    assert p.pending[act.path].status == plan.DAMAGED
    Path(act.path).write_bytes(content)
    plan.take_over(p)
    assert Path(act.path).read_bytes() == content and not Path(act.path + ".bad").exists()


def test_batches_do_not_depend_on_the_order_of_targets(tmp_path):
    targets = World(tmp_path, "abcdef").all
    shuffled = random.Random(0).sample(targets, len(targets))
    shards = {"activations": 3}
    assert plan.batches(targets, shards) == plan.batches(shuffled, shards)


def test_shards_keep_an_item_together_and_are_balanced(tmp_path):
    costs = {"a": 5.0, "b": 3.0, "c": 3.0, "d": 1.0}
    targets = [
        target(tmp_path, "activations", 1, f"m/{d}/{s}", {"d": d, "s": s},
               loader="m", item=d, cost=c)
        for d, c in costs.items() for s in "xy"
    ]  # fmt: skip
    shards = plan.batches(targets, {"activations": 2})
    assert [b.rule for b in shards] == ["activations_m_1", "activations_m_2"]
    assert [b.cost for b in shards] == [12.0, 12.0]
    assert [{t.item for t in b.targets} for b in shards] == [{"a", "d"}, {"b", "c"}]


def test_rule_names_stay_apart(tmp_path):
    ts = [target(tmp_path, "s", 1, n, {"n": n}, loader=n, item="i") for n in ("a-b", "a.b")]
    assert [b.rule for b in plan.batches(ts, {})] == ["s_a_b", "s_a_b_v2"]


def test_plan_all_shows_what_is_there_as_well(world):
    assert counts(world.plan(everything=True)) == {"texts": 2, "activations": 4, "probes": 4}


def test_the_frozen_plan_is_what_the_jobs_see(tmp_path):
    p = World(tmp_path / "cache").plan()
    frozen = plan.thaw(plan.freeze(p, tmp_path))
    assert frozen.batches == p.batches
    assert frozen.paths("probes") == p.paths("probes")
    make(frozen.batches[0].targets)  # files that appear meanwhile change nothing
    assert plan.thaw(plan.freeze(p, tmp_path)).batches == p.batches


def test_a_job_without_a_plan_fails_clearly(tmp_path, monkeypatch):
    monkeypatch.delenv("ACTPROBE_PLAN", raising=False)
    with pytest.raises(ActprobeError, match="ACTPROBE_PLAN is not set"):
        session.begin({}, main=False, acts=True)
    with pytest.raises(ActprobeError, match="frozen plan"):
        plan.thaw(tmp_path / "gone.json")


def test_a_batch_waits_for_one_output_of_every_batch_before_it(tmp_path):
    p = World(tmp_path).plan()
    acts, probes, texts = p.batches
    assert texts.inputs == ()
    assert acts.inputs == (texts.outputs[0],)
    assert set(probes.inputs) == {texts.outputs[0], acts.outputs[0]}


def test_batches_in_order_come_after_what_they_read(tmp_path):
    made = World(tmp_path, "cab").plan(shards={"activations": 2})
    done: set[str] = set()
    for batch in made.in_order():
        assert {p for t in batch.targets for p in t.inputs} <= done
        done.update(batch.outputs)
    assert done == set(made.pending)
