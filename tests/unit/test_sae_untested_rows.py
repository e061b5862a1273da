"""D9: an SAE is trained on rows that no probe of it tests; where it is not, tables and report say so."""

import contextlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from probes_inputs import Cache
from sae_tiny import batch, config
from test_sae_training import TRAIN, known, tokens

from actprobe import probes, sae
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.cache.plan import make
from actprobe.probes import data, fit, protocol, sizes, tested
from actprobe.report.saes import about
from actprobe.results import layout, saes
from actprobe.sae import rows, stream

N = {"a": 300, "b": 100}
SMALL = {"epochs": 1}


class World:
    """Texts, token activations and means of datasets, and the config that probes an SAE of them."""

    def __init__(self, folder, entries, names=("a", "b"), text=None, **train):
        self.cache = Cache(folder)
        for name in names:
            y = np.arange(N[name]) % 2
            self.cache.texts(name, y, (text or {}).get(name))
        xs = {n: tokens(N[n], seed=i) for i, n in enumerate(names)}
        self.known = {"texts": self.cache.known["texts"], "activations": known(folder, xs)}
        entry = {"train": TRAIN | SMALL | train, "position": "mean"}
        self.config = config(folder, {"s": entry}, probes=list(entries))

    def targets(self):
        found = sae.targets(self.config, self.known, DigestMemo(self.config["cache_dir"]))
        latents = [t for t in found if t.stage == "latents"]
        return next(t for t in found if t.stage == "saes"), latents

    def trained(self):
        t = self.targets()[0]
        sae.make(batch([t]), self.config, 1)
        return t

    def used(self, t):
        """Rows of each dataset that trained, by their texts."""
        with store.open_h5(t.path) as f:
            trained = set(f[rows.TEXTS][:].tolist())
        return {x.item: np.array([d in trained for d in rows._digests(x.path).tolist()])
                for x in self.known["texts"]}  # fmt: skip

    def plan(self):
        one, latents = self.targets()
        wanted = probes.targets(
            self.config, self.known | {"latents": latents}, DigestMemo(self.config["cache_dir"])
        )
        everything = [*self.known["texts"], *self.known["activations"], one, *latents, *wanted]
        return make(self.config, everything, [t.path for t in wanted])


PROBE = {"protocol": "actprobe-1", "sources": ["s"]}


def rows_probed(world, name, entry):
    """Test rows of a dataset in any seed and condition, split as the probes split them."""
    found = np.zeros(N[name], bool)
    [t] = [t for t in world.known["texts"] if t.item == name]
    labels, loaded = data.labels(t.path), protocol.load(entry["protocol"])
    for setting in entry.get("settings", ["normal"]):
        recipe = protocol.recipe(loaded, setting, "ksparse_b")
        for seed in recipe["seeds"]:
            own = labels.keep(recipe["rows"]["most"], recipe["rows"]["kept"], seed)
            for condition in sizes.conditions(recipe["setting"]):
                with contextlib.suppress(sizes.CannotFit):
                    found[own.row[fit.split(own, recipe, condition, seed).test]] = True
    return found


@pytest.mark.parametrize("entry", [
    PROBE,
    PROBE | {"settings": ["normal", "label_noise", "imbalance"]},
    {"protocol": "saeprobes-0.4.2", "sources": ["s"]},
], ids=["actprobe-1", "settings", "saeprobes"])  # fmt: skip
def test_d9_no_row_that_a_probe_tests_is_trained_on(tmp_path, entry):
    world = World(tmp_path, [entry])
    t = world.trained()
    used, about = world.used(t), store.read_header(t.path)["facts"]["training"]
    for name in N:
        assert np.array_equal(used[name], ~rows_probed(world, name, entry))
    assert not used["a"].all()
    assert about["rows"] == "untested" and about["rows_there"] == 400
    assert about["rows_used"] == sum(u.sum() for u in used.values())
    for x in world.known["texts"]:
        assert rows.seen(t.path, x.path, [(entry["protocol"], "normal")]) in (0, None)


def test_d9_datasets_that_no_probe_tests_are_trained_on_as_a_whole(tmp_path):
    world = World(tmp_path, [PROBE | {"datasets": ["a"]}])
    used = world.used(world.trained())
    assert used["b"].all() and not used["a"].all() and used["a"].any()


def test_d9_probes_of_other_sources_leave_the_sae_alone(tmp_path):
    """Its rows, and so its key, follow from the probes that read it."""
    bare = World(tmp_path, []).targets()[0]
    others = World(tmp_path, [PROBE | {"sources": ["m/*"]}]).targets()[0]
    reading = World(tmp_path, [PROBE]).targets()[0]
    assert bare.key == others.key != reading.key
    assert World(tmp_path, [PROBE | {"methods": ["ksparse_a"]}]).targets()[0].key == reading.key
    more = [PROBE, {"protocol": "saeprobes-0.4.2", "sources": ["s"]}]
    assert World(tmp_path, more).targets()[0].key != reading.key
    assert set(reading.inputs) > {t.path for t in World(tmp_path, [PROBE]).known["texts"]}


def test_d9_an_out_of_distribution_test_set_is_tested_as_a_whole(tmp_path):
    found = tested.tests(
        {"probes": [{"protocol": "actprobe-1", "settings": ["normal", "ood"], "sources": ["*"],
                     "datasets": ["*"]}]}, "s", ["a", "a_OOD", "b"],
    )  # fmt: skip
    assert found["a_OOD"] == [tested.WHOLE, ("actprobe-1", "normal")]
    assert found["a"] == found["b"] == [("actprobe-1", "normal")]
    cache = Cache(tmp_path)
    t = cache.texts("a_OOD", [0, 1, None, 1])
    assert tested.rows(t.path, [tested.WHOLE]).tolist() == [True, True, False, True]


def test_d9_a_text_that_is_tested_elsewhere_is_not_trained_on(tmp_path):
    """The same text has the same activations, in whatever row and dataset."""
    text = {"b": [f"a {i}" for i in range(100)]}  # the first hundred of dataset a
    world = World(tmp_path, [PROBE | {"datasets": ["a"]}], text=text)
    used = world.used(world.trained())
    assert np.array_equal(used["b"], used["a"][:100]) and not used["b"].all()


def test_d9_where_too_few_rows_are_left_all_are_used_and_it_is_told(tmp_path, caplog):
    """saeprobes' scarcity tests all rows but two."""
    entry = {"protocol": "saeprobes-0.4.2", "sources": ["s"], "settings": ["scarcity"]}
    world = World(tmp_path, [entry], names=["a"])
    t = world.trained()
    assert all(u.all() for u in world.used(t).values())
    assert store.read_header(t.path)["facts"]["training"]["rows"] == "all"
    assert "too few, so it is trained on all rows, tested ones too" in caplog.text
    table = saes.codes_table(layout.encoded(world.plan()))
    assert table["tested_rows_seen"].tolist() == [1.0]


def test_d9_all_rows_where_the_config_says_so(tmp_path):
    world = World(tmp_path, [PROBE], rows="all")
    t = world.trained()
    assert all(u.all() for u in world.used(t).values())
    assert t.key == World(tmp_path, [], rows="all").targets()[0].key


def test_d9_tables_and_report_say_which_share_of_the_tested_rows_was_seen(tmp_path):
    for how, share in (("untested", 0.0), ("all", 1.0)):
        world = World(tmp_path / how, [PROBE], rows=how)
        world.trained()
        plan = world.plan()
        latents = [plan.targets[p] for p in plan.paths("latents")]
        sae.run(batch(latents), world.config, 1)
        encoded = layout.encoded(plan)
        assert [e["tests"] for e in encoded] == [[["actprobe-1", "normal"]]] * 2
        table = saes.codes_table(encoded)
        assert table["tested_rows_seen"].tolist() == [share, share]
        curve = saes.training_table(encoded)
        assert set(curve["rows"]) == {how} and set(curve["tested_rows_seen"]) == {share}
        table.to_csv(tmp_path / "saes.csv", index=False)
        [row] = about(pd.read_csv(tmp_path / "saes.csv")).rows
        said = "trained on rows that its probes test: 100% of those of 2 datasets"
        assert (said in row[7]) == (how == "all")


def test_d9_texts_that_are_not_those_of_the_tokens(tmp_path):
    world = World(tmp_path, [PROBE])
    t = world.targets()[0]
    other = Cache(tmp_path / "other").texts("a", [0, 1])
    t = replace(t, args=replace(t.args, texts=(other.path, *t.args.texts[1:])))
    with pytest.raises(Exception, match="300 rows of tokens, its dataset has 2 texts"):
        sae.make(batch([t]), world.config, 1)


def test_d9_a_dataset_without_labels_is_tested_by_none(tmp_path):
    t = Cache(tmp_path).texts("a", [None, None])
    assert not tested.rows(t.path, [("actprobe-1", "normal")]).any()


def test_rows_that_are_kept_alone_are_read(tmp_path):
    ts = [t for t in known(tmp_path) if t.args["position"] == "tokens"]
    x, offsets = tokens()
    keep = [np.arange(300) % 3 == 0, np.zeros(100, bool)]
    with stream.opened([t.path for t in ts], 0.1, 0, keep) as (train, held):
        wanted = {
            r.tobytes() for i in np.flatnonzero(keep[0]) for r in x[offsets[i] : offsets[i + 1]]
        }
        seen = {r.tobytes() for part in (train, held) for r in part.read(0, part.n)}
        assert seen == wanted and 0 < held.n < train.n


def test_d9_rows_that_are_drawn_by_the_seed_are_left_out_for_every_seed(tmp_path):
    """A protocol that uses some of the rows draws others of them with each seed."""
    file = tmp_path / "few.yaml"
    file.write_text("extends: actprobe-1\nname: few\nrows: {most: 100}\nseeds: [0, 1]\n")
    entry = PROBE | {"protocol": str(file)}
    world = World(tmp_path / "two", [entry])
    used = world.used(world.trained())
    assert np.array_equal(used["a"], ~rows_probed(world, "a", entry))
    file = tmp_path / "one" / "few.yaml"
    file.parent.mkdir()
    file.write_text("extends: actprobe-1\nname: few\nrows: {most: 100}\nseeds: [0]\n")
    less = World(tmp_path / "one", [PROBE | {"protocol": str(file)}])
    assert less.used(less.trained())["a"].sum() > used["a"].sum()
