"""From the config to targets: what is asked for, what makes it stale, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from probes_inputs import Cache, data, sparse_data

from actprobe import probes
from actprobe.base import keys
from actprobe.base.errors import ConfigError
from actprobe.probes import protocol

P = "saeprobes-0.4.2"
LATENTS = "family: logreg, reads: latents, scaler: none, tiny: {}"
FROZEN = json.loads((Path(__file__).parents[1] / "golden" / "probes.json").read_text())["recipes"]


@pytest.fixture
def cache(tmp_path):
    """Datasets a, b and a_OOD; a model with two sites; one SAE."""
    cache = Cache(tmp_path / "cache")
    for name in ("a", "b", "a_OOD"):
        x, y = data(60, 4, seed=len(name))
        cache.texts(name, y)
        for site in ("resid_post.0", "resid_post.1"):
            cache.activations(name, x, site=site)
        cache.latents(name, sparse_data(60, 30)[0])
    return cache


def targets(cache, *entries):
    config = cache.config(*entries)
    return probes.targets(config, cache.known, keys.DigestMemo(cache.folder))


def names(cache, *entries):
    return [t.name for t in targets(cache, *entries)]


def test_one_target_per_setting_source_dataset_and_method(cache):
    found = names(
        cache, {"protocol": P, "settings": ["normal", "scarcity"], "datasets": ["a", "b"]}
    )
    dense = [f"m/resid_post.{i}.mean/{d}.{m}" for i in (0, 1) for d in "ab"
             for m in ("logreg", "pca", "knn", "xgboost", "mlp")]  # fmt: skip
    each = [*dense, "sae/a.ksparse_b", "sae/b.ksparse_b"]
    assert sorted(found) == sorted(f"{P}/{s}/{e}" for s in ("normal", "scarcity") for e in each)


def test_path_loader_and_inputs(cache):
    t = targets(cache, {"protocol": P, "sources": ["m/*.1.mean"], "methods": ["knn"]})[0]
    assert t.path == (
        f"{cache.folder}/probes/{P}/normal/m/resid_post.1.mean/a.knn.{keys.short(t.key)}.parquet"
    )
    assert (t.stage, t.loader, t.item) == ("probes", f"{P}.normal.m", "a")
    assert [p.split("/")[-2] for p in t.inputs] == ["texts", "a"]
    sae = targets(cache, {"protocol": P, "sources": ["sae"]})[0]
    assert sae.loader == f"{P}.normal.sae"


def test_entries_that_overlap_share_results(cache):
    entry = {"protocol": P, "sources": ["m/*"], "methods": ["logreg"]}
    assert len(names(cache, entry, entry | {"methods": ["logreg", "pca"]})) == 2 * len(
        names(cache, entry)
    )


def test_ood_is_tested_on_the_shifted_dataset(cache):
    entry = {"protocol": P, "settings": ["ood"], "sources": ["m/*.0.mean"], "datasets": ["a", "b"]}
    [t] = targets(cache, entry)
    assert t.item == "a" and t.args["test_set"] == "a_OOD"
    assert len(t.inputs) == 4


def test_ood_without_a_test_set(cache):
    with pytest.raises(ConfigError, match=r"tests each dataset on '\{dataset\}_OOD'.*b_OOD"):
        names(cache, {"protocol": P, "settings": ["ood"], "datasets": ["b"]})


def test_ood_with_the_same_rows_is_refused(cache):
    x, y = data(60, 4)
    cache.texts("c", y, [f"t{i}" for i in range(60)])
    cache.texts("c_OOD", y, [f"t{i}" for i in range(60)])
    for d in ("c", "c_OOD"):
        cache.activations(d, x)
    with pytest.raises(ConfigError, match="c_OOD has the rows of c"):
        names(cache, {"protocol": P, "settings": ["ood"], "datasets": ["c"]})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"protocol": "saeprobes-0.4.3"}, "unknown protocol 'saeprobes-0.4.3'; did you mean"),
        ({"settings": ["normale"]}, r"probes\[0\]: saeprobes-0.4.2 has no setting 'normale'; did"),
        ({"methods": ["logregs"]}, "has no method 'logregs'; did you mean 'logreg'"),
        ({"sources": ["m/resid_post.7.mean"]}, "no source matches 'm/resid_post.7.mean'; did you"),
        ({"datasets": ["c*"]}, r"no dataset matches 'c\*'"),
        ({"sources": ["sae"], "methods": ["knn"]}, "knn reads activations, and no source here"),
    ],
)
def test_what_does_not_exist_is_named(cache, entry, message):
    with pytest.raises(ConfigError, match=message):
        names(cache, {"protocol": P, **entry})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"settings": ["label_noise"], "methods": ["logreg", "pca"]},
         "pca would not run. It reads activations, in the settings normal, scarcity, imbalance: "),
        ({"settings": ["normal", "label_noise"], "methods": ["pca"]},
         r"setting label_noise would run nothing. Its methods are logreg \(reads activations\), ks"),
        ({"protocol": "actprobe-1", "settings": ["multi_token"], "sources": ["m/*"]},
         r"setting multi_token would run nothing. Its methods are sae_max \(reads token_latents\)"),
        ({"sources": ["*.tokens"]}, "setting normal would run nothing"),
        ({"sources": ["m/*", "other"], "datasets": ["b"], "methods": ["knn", "ksparse_b"]},
         "ksparse_b would not run. It reads latents"),
    ],
)  # fmt: skip
def test_what_would_run_nothing_is_refused(cache, entry, message):
    cache.activations("a", data(60, 4)[0], position="tokens")
    cache.latents("a", sparse_data(60, 30)[0], sae="other")
    with pytest.raises(ConfigError, match=message):
        names(cache, {"protocol": P, **entry})


def test_activations_of_all_tokens_are_no_source(cache):
    cache.activations("a", data(60, 4)[0], position="tokens")
    assert not any("tokens" in n for n in names(cache, {"protocol": P}))


def test_one_methods_grid_leaves_the_others_alone(cache, tmp_path, monkeypatch):
    def keys_of(text):
        (tmp_path / "own.yaml").write_text(text)
        protocol.load.cache_clear()
        protocol.digest.cache_clear()
        entry = {"protocol": str(tmp_path / "own.yaml"), "sources": ["m/*.0.mean"],
                 "settings": ["normal", "scarcity"], "datasets": ["a"]}  # fmt: skip
        return {t.name: t.key for t in targets(cache, entry)}

    base = "name: own\ndescription: mine\nextends: saeprobes-0.4.2\n"
    before = keys_of(base)
    described = keys_of(base.replace("mine", "still mine"))
    assert described == before and len(before) == 10
    grid = keys_of(base + "methods: {knn: {neighbours: 50}}\n")
    assert {n for n in before if grid[n] != before[n]} == {n for n in before if "knn" in n}
    sizes = keys_of(base + "settings: {scarcity: {values: [8, 16]}}\n")
    assert {n for n in before if sizes[n] != before[n]} == {n for n in before if "scarcity" in n}


def test_labels_and_activations_decide_the_key(cache, tmp_path):
    entry = {"protocol": P, "methods": ["logreg"], "datasets": ["a"], "sources": ["m/*.0.mean"]}
    [before] = targets(cache, entry)
    cache.known["texts"] = [t for t in cache.known["texts"] if t.item != "a"]
    cache.texts("a", 1 - data(60, 4, seed=1)[1])
    [after] = targets(cache, entry)
    changed = {k for k in after.record if after.record[k] != before.record[k]}
    assert changed == {"texts"}


@pytest.mark.parametrize("name", protocol.names())
def test_built_in_protocols_follow_the_schema(name):
    loaded = protocol.load(name)
    assert loaded["name"] == name
    for setting in loaded["settings"]:
        for method in loaded["methods"]:
            assert len(protocol.digest(name, setting, method)) == 64


@pytest.mark.parametrize("name", FROZEN)
def test_published_protocols_are_frozen(name):
    """All their recipes are frozen: so are the keys of their results."""
    p = protocol.load(name)
    recipes = {f"{s}/{m}": protocol.digest(name, s, m) for s in p["settings"] for m in p["methods"]}
    assert keys.spec_key(recipes) == FROZEN[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seeds: []", r"seeds: \[\]: expected 1 or more"),
        ("seed: 1", "unknown key 'seed'; did you mean 'seeds'"),
        (
            "methods: {logreg: {family: forest}}",
            "methods.logreg.family: nobody has registered 'forest'",
        ),
        ("extends: nothing", "unknown protocol 'nothing'"),
        ("rows: .nan", "rows: nan: expected text or a mapping"),
        (
            "settings: {imbalance: {values: [0.15, 0.97]}}",
            r"imbalance: 0.97 is not in the range \[0",
        ),
        ("settings: {own: {vary: ratio, values: [0.5]}}", "settings.own: 'range' is missing"),
        ("methods: {logreg: {C: [.nan]}}", "a spec cannot hold nan"),
        ("methods: {logreg: {solver: {solver: {}}}}", "logreg.solver.solver: {}: expected text"),
        ("extends: 5", "extends: 5 is not the name of a protocol"),
        ("rows: [", "cannot be read"),
        (
            "methods: {ksparse_b: {ranking_rows: fit, scaler_rows: train}}",
            "ksparse_b: `ranking_rows: fit` needs `scaler_rows: fit`, found 'train'",
        ),
        (f"methods: {{own: {{{LATENTS}, solver: {{}}, C: [1]}}}}", "own: 'ranking' is missing"),
        (
            f"methods: {{own: {{{LATENTS}, ranking: a, ks: [1], C: [1]}}}}",
            "own: 'solver' is missing",
        ),
        ("methods: {logreg: {family: lda}}", "logreg: 'shrinkage' is missing"),
        (
            "methods: {logreg: {family: attention, init: 1, learning_rate: 1, steps: 1, holdout: 0.2}}",
            "logreg: `family: attention` needs `reads: tokens`",
        ),
    ],
)
def test_a_protocol_of_ones_own_is_checked(tmp_path, change, message):
    file = tmp_path / "own.yaml"
    file.write_text(f"name: own\ndescription: mine\nextends: {P}\n{change}\n")
    with pytest.raises(ConfigError, match=message):
        protocol.load(str(file))


def test_protocols_that_extend_each_other_are_refused(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"name: one\nextends: {two}\n")
    two.write_text(f"name: two\nextends: {one}\n")
    with pytest.raises(
        ConfigError, match=r"extends itself: \S+one.yaml → \S+two.yaml → \S+one.yaml"
    ):
        protocol.load(str(one))


def test_a_sparse_probe_with_another_solver(cache, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        f"name: own\ndescription: mine\nextends: {P}\nmethods: {{own: {{{LATENTS}, ranking: a, "
        "ks: [16], solver: {solver: lbfgs}, C: [1]}}\n"
    )
    [a, *_] = targets(cache, {"protocol": str(file), "methods": ["own"]})
    assert a.cost > 0


def test_a_protocol_cannot_take_a_name_or_leave_its_file(tmp_path):
    text = yaml.safe_dump({"name": P, "description": "mine", "extends": P})
    (tmp_path / f"{P}.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(ConfigError, match="taken by a built-in protocol"):
        protocol.load(str(tmp_path / f"{P}.yaml"))
    with pytest.raises(ConfigError, match="not the file's name"):
        protocol.load(str(tmp_path / "other.yaml"))


def test_planning_is_light():
    """Every Snakemake process imports the room: no heavy library may come along."""
    code = (
        "import sys, actprobe.probes; "
        "print([m for m in ('torch','sklearn','scipy','h5py','pyarrow','pandas','xgboost') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
