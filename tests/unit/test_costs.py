"""What jobs ask for follows from models, SAEs and rows, and from what the job before was given."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from actprobe import config as configuration
from actprobe.cache import jobs, plan, store
from actprobe.experiment import costs, shapes, words
from actprobe.experiment import targets as experiment
from actprobe.probes import effort, protocol

LLAMA_70B = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
    "vocab_size": 128256, "dtype": "bfloat16",
}  # fmt: skip
SMALL = {
    "model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 12, "num_attention_heads": 16, "vocab_size": 32000, "dtype": "float32",
}  # fmt: skip


class World:
    """A config of one model, one SAE and one dataset; nothing heavier than a config.json exists."""

    def __init__(self, folder: Path, rows: int = 1000, described: dict = SMALL, **model) -> None:
        (folder / "d.csv").write_text("text,label\n" + f"{'word ' * 20},0\n{'word ' * 20},1\n" * 2)
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / "config.json").write_text(json.dumps(described))
        (folder / "model" / "model.safetensors").touch()
        self.folder, self.rows = folder, rows
        self.config = {
            "experiment": "e",
            "cache_dir": str(folder / "cache"),
            "datasets": [{"name": "d", "path": str(folder / "d.csv")}],
            "models": {"m": {"source": str(folder / "model"), **model}},
            "activations": [{"model": "m", "sites": ["resid_post.3"], "positions": ["last"]}],
            "saes": {"s": self.sae("16k", 50)},
            "probes": [
                {"protocol": "saeprobes-0.4.2-fast", "sources": ["m/*"], "methods": ["logreg"]},
                {"protocol": "saeprobes-0.4.2-fast", "sources": ["s"], "methods": ["ksparse_b"]},
            ],
        }

    @staticmethod
    def sae(width: str, l0: int, **more) -> dict:
        return {
            "source": f"hub:google/gemma-scope-9b-pt-res/layer_3/width_{width}/average_l0_{l0}",
            "revision": "0" * 40, "format": "gemma_scope", "model": "m", "site": "resid_post.3",
            **more,
        }  # fmt: skip

    def plan(self) -> plan.Plan:
        """The plan, with texts in the cache that have `rows` rows of about 100 bytes."""
        resolved = configuration.resolve(self.config)
        made = experiment.plan(resolved)
        for path in made.paths("texts"):
            counts = [self.rows - self.rows // 2, self.rows // 2]
            facts = {"n": self.rows, "rows": "r", "content": "c", "classes": ["0", "1"]}
            header = store.make_header(made.targets[path].record, facts | {"counts": counts})
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as f:
                f.write(header)
                f.truncate(max(len(header), self.rows * 76))
            store.seal(path)
        return experiment.plan(resolved)

    def costs(self) -> dict[str, costs.Cost]:
        """Stage -> cost of its only (or first) job."""
        made = self.plan()
        found = costs.estimates(made)
        return {b.stage: found[b.rule] for b in reversed(made.batches)}


@pytest.fixture
def world(tmp_path):
    return lambda **options: World(tmp_path, **options)


def test_parameters_are_counted_from_the_models_config(world, tmp_path):
    w = world(described=LLAMA_70B, dtype="bfloat16")
    model = shapes.model(configuration.resolve(w.config), "m")
    held, read = model.weights(80, "bfloat16")
    assert held == read == pytest.approx(2 * 69.5e9, rel=0.01)  # without the output matrix


def test_experts_cost_memory_that_no_token_passes_through(world):
    mixture = LLAMA_70B | {"num_local_experts": 8, "num_experts_per_tok": 2}
    model = shapes.model(configuration.resolve(world(described=mixture).config), "m")
    assert model.layer > 3.5 * model.active


def test_a_model_that_is_not_there_yet_is_guessed_from_the_config(world):
    w = world(n_layers=80, d_model=8192, dtype="bfloat16")
    (w.folder / "model" / "config.json").unlink()
    held, _ = shapes.model(configuration.resolve(w.config), "m").weights(80, "bfloat16")
    assert held == pytest.approx(2 * 70e9, rel=0.3)


def test_extraction_grows_with_rows_and_layers(world):
    few, many = world(rows=10_000).costs(), world(rows=100_000).costs()
    w = world(rows=10_000)
    w.config["activations"][0]["sites"] = ["resid_post.11"]
    w.config["saes"], w.config["probes"] = {}, w.config["probes"][:1]
    deep = w.costs()["activations"]
    few, many = few["activations"], many["activations"]
    passes = few.cpu_seconds - costs._LOAD_SECONDS
    assert many.cpu_seconds - costs._LOAD_SECONDS == pytest.approx(10 * passes, rel=0.05)
    assert many.disk_bytes == 10 * few.disk_bytes == 100_000 * (4 * 1024 + 4)
    assert deep.cpu_seconds - costs._LOAD_SECONDS == pytest.approx(3 * passes, rel=0.05)
    assert deep.mem_mb > few.mem_mb


@pytest.mark.parametrize(
    ("site", "d"), [("z.3", 16 * 128), ("mlp_post.3", 4096), ("mlp_in.3", 1024)]
)
def test_disk_goes_with_the_width_of_the_site(world, site, d):
    w = world(rows=10_000, described={**SMALL, "head_dim": 128})
    w.config["activations"][0]["sites"] = [site]
    w.config["saes"], w.config["probes"] = {}, w.config["probes"][:1]
    assert w.costs()["activations"].disk_bytes == 10_000 * (4 * d + 4)


def test_extraction_holds_the_model_and_little_else(world):
    cost = world(described=LLAMA_70B, dtype="bfloat16", device="cpu").costs()["activations"]
    model = 128256 * 8192 * 2 + 4 * 855_638_016 * 2  # four of the 80 layers, two bytes a number
    assert model < cost.mem_mb * 1e6 < 1.25 * model + 2e9


def test_encoding_grows_with_rows_and_latents(world):
    w = world(rows=10_000)
    w.config["saes"] = {"narrow": w.sae("16k", 50), "wide": w.sae("131k", 100)}
    w.config["probes"] = w.config["probes"][:1]
    found = costs.estimates(w.plan())
    narrow, wide = found["latents_narrow"], found["latents_wide"]
    operations = 2 * 10_000 * 1024 * 131 * 1024
    assert wide.cpu_seconds == pytest.approx(operations / 1e11, rel=0.3)
    assert wide.disk_bytes / narrow.disk_bytes == pytest.approx(100 / 50, rel=0.05)
    assert wide.mem_mb > narrow.mem_mb


def test_bounded_stages_never_ask_for_more_than_max_memory_allows(world):
    for rows in (1_000, 20_000):
        w = world(rows=rows)
        w.config["max_memory"] = "1500MB"
        found = w.costs()
        assert found["latents"].mem_mb <= 1500 and found["probes"].mem_mb <= 1500


def test_probes_scale_with_the_width_of_dense_activations_only(world):
    w = world()
    narrow = costs.estimates(w.plan())
    (w.folder / "model" / "config.json").write_text(json.dumps(SMALL | {"hidden_size": 4096}))
    wide = costs.estimates(w.plan())
    rules = [r for r in narrow if r.startswith("probes")]
    dense, sparse = (next(r for r in rules if r.endswith(end)) for end in ("_m", "_s"))
    assert wide[dense].cpu_seconds == pytest.approx(4 * narrow[dense].cpu_seconds)
    assert wide[sparse].cpu_seconds == narrow[sparse].cpu_seconds


def test_features_and_primitives_of_loras_scale_with_their_number(world):
    estimator = costs.Estimator(world().plan())
    for stage in ("lora_primitives", "features"):
        few, many = (estimator.cost(batch(stage, cost=n)) for n in (1_000_000, 10_000_000))
        assert many.disk_bytes == 10 * few.disk_bytes
        assert 8 * few.cpu_seconds < many.cpu_seconds <= 10 * few.cpu_seconds
        assert many.runtime_min > few.runtime_min


def test_classifiers_take_longer_with_more_loras(world):
    def seconds(n: int) -> float:
        recipe = protocol.recipe(protocol.load("lora-1"), "normal", "logreg")
        fits = batch("probes", effort.seconds(recipe, n, 640), features=["x.h5"], kept_bytes=0.0)
        return costs.Estimator(world().plan()).cost(fits).cpu_seconds

    assert seconds(100_000) > 8 * seconds(10_000)


def batch(stage: str, cost: float, **args: Any) -> plan.Batch:
    own = SimpleNamespace(**args) if stage == "probes" else args
    t = plan.Target(stage, "l", "i", "n", "p", "k", {}, args=own, cost=cost)
    return plan.Batch(f"{stage}_l", stage, "l", (t,))


def test_rows_of_texts_that_are_there_are_known(world):
    w = world(rows=777)
    known = shapes.datasets(w.plan())["d"]
    assert known == shapes.Rows(777, known.text_bytes, True)
    assert known.tokens() == pytest.approx(777 * (1 + 100 / 4), rel=0.1)
    assert known.tokens(max_length=8) == 777 * 8


def test_rows_of_texts_to_be_made_are_guessed_from_the_file(tmp_path):
    w = World(tmp_path)
    (tmp_path / "d.csv").write_text("text,label\n" + "x,0\n" * 100_000)
    guessed = shapes.datasets(experiment.plan(configuration.resolve(w.config)))["d"]
    assert not guessed.known and guessed.text_bytes == pytest.approx(400_000, rel=0.01)


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_further_attempt_asks_for_twice_as_much(attempt):
    cost = costs.Cost(mem_mb=4000, runtime_min=30, disk_bytes=0, cpu_seconds=1.0)
    assert costs.mem_mb(cost, attempt) == (4000 + 300) * 2 ** (attempt - 1)
    assert costs.runtime(cost, attempt) == 30 * 2 ** (attempt - 1)


def test_no_submission_is_too_small_to_begin():
    assert costs.mem_mb(costs.Cost(1, 1, 0, 0.1)) == 500


def test_a_jobs_work_may_take_what_it_was_given_without_snakemakes_share():
    assert jobs.max_memory(2_500_000_000, None) == 2_500_000_000
    assert jobs.max_memory(2_500_000_000, given_mb=64_000) == 2_500_000_000
    assert jobs.max_memory(2_500_000_000, given_mb=1_500) == 1_200_000_000
    cost = costs.Cost(mem_mb=1_200, runtime_min=10, disk_bytes=0, cpu_seconds=1.0)
    assert jobs.max_memory(10**12, costs.mem_mb(cost)) == 1_200_000_000


def test_gpus_are_asked_for_only_where_the_config_says_so(world):
    w = world(device="cuda")
    w.config["saes"]["s"]["device"] = "cuda"
    found = w.costs()
    assert {stage: c.gpu for stage, c in found.items()} == {
        "activations": 1, "latents": 1, "probes": 0,
    }  # fmt: skip
    assert not any(costs.is_small("r", c) for c in found.values() if c.gpu)
    assert not any(c.gpu for c in world().costs().values())  # auto takes what is there


def test_a_model_spread_over_gpus_asks_for_as_many_as_hold_it(world):
    w = world(described=LLAMA_70B, dtype="bfloat16", device_map="auto")
    w.config["activations"][0]["sites"] = ["resid_post.79"]
    w.config["saes"], w.config["probes"] = {}, w.config["probes"][:1]
    cost = w.costs()["activations"]
    assert cost.gpu == 3  # 139 GB and a quarter, 80 GB a card
    assert cost.mem_mb < 20_000  # weights go to the cards as they are read


def test_time_is_shared_by_the_threads_of_the_config(world):
    def minutes(threads: int) -> int:
        w = world(rows=300_000)
        w.config["threads"] = {"activations": threads}
        return w.costs()["activations"].runtime_min

    assert minutes(1) - 10 == pytest.approx(8 * (minutes(8) - 10), rel=0.1)


def test_the_profile_does_not_overwrite_what_holds_everywhere(root):
    everywhere = yaml.safe_load((root / "profiles" / "default" / "profile.yaml").read_text())
    cluster = yaml.safe_load((root / "slurm" / "config.yaml").read_text())
    assert not set(everywhere) & set(cluster)
    assert cluster["executor"] == "slurm" and cluster["latency-wait"] >= 30
    assert not any("array" in key for key in cluster)


def test_the_names_of_a_group_fit_into_one_folder_name(root):
    small = costs.Cost(500, 11, 0, 1.0)
    assert costs.is_small("r" * costs.LONGEST_NAME, small)
    assert not costs.is_small("r" * (costs.LONGEST_NAME + 1), small)
    for entry in yaml.safe_load((root / "slurm" / "config.yaml").read_text())["group-components"]:
        group, _, jobs = entry.partition("=")
        assert len("_".join(["group", group, *["r" * costs.LONGEST_NAME] * int(jobs)])) <= 255


def test_examples_have_estimates(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    raw = configuration.load_file("config/examples/gemma-2-9b-saeprobes.yaml")
    made = experiment.plan(configuration.resolve(raw | {"cache_dir": str(tmp_path)}))
    by_stage = {e["stage"]: e for e in words.estimate(made)}
    # 334,092 rows, 37 SAEs of 10.2 million latents, d = 3584: 2.4e16 operations.
    assert by_stage["latents"]["cpu_seconds"] == pytest.approx(2.4e16 / 1e11, rel=0.15)
    assert by_stage["latents"]["disk_bytes"] == pytest.approx(334_092 * 37 * 107 * 5.3, rel=0.3)
    assert by_stage["probes"]["jobs"] > 37 and by_stage["activations"]["jobs"] == 1
    # Of each row of the fits on one condition 12 bytes: 37 SAEs with ten k, five methods on four sites.
    kept = by_stage["probes"]["kept_bytes"]
    assert kept == pytest.approx(334_092 * (37 * 10 + 5 * 4) * 12, rel=0.7)
    assert f"{kept / 1e9:.2f} GB of it are models and scores of kept fits" in words.estimate_table(
        made
    )


def test_jobs_on_tokens_ask_for_their_tokens(world):
    """3,000 texts of about 26 tokens, d = 1024: 320 MB of activations."""
    w = world(rows=3000)
    w.config["activations"][0]["positions"] = ["last", "tokens"]
    w.config["probes"] = [
        {"protocol": "saeprobes-paper", "sources": ["m/*.tokens"], "settings": ["multi_token"],
         "methods": ["attention"]}
    ]  # fmt: skip
    w.config["saes"] = {p: w.sae("16k", 50, position=p) for p in ("last", "tokens")}
    made = w.plan()
    estimator = costs.Estimator(made)
    vectors, tokens = (estimator.cost(b) for b in made.of("latents"))
    assert tokens.disk_bytes > 20 * vectors.disk_bytes
    assert tokens.cpu_seconds - 2 > 10 * (vectors.cpu_seconds - 2)
    [probes] = made.of("probes")
    assert estimator.cost(probes).mem_mb > 6 * 3000 * 26 * 4 * 1024 / 1e6
