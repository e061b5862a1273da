"""Models that have their weights in common: one load, and the bits of a load for each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from models_tiny import D, model_entry, save_model, save_tokenizer, write_texts
from test_models_adapters import given, trained

from actprobe import config as configs
from actprobe import models
from actprobe.base import keys
from actprobe.base.errors import BadInput
from actprobe.cache import plan, store
from actprobe.experiment import costs
from actprobe.models import adapters, extract, load
from actprobe.models.run import run as run_batch

peft = pytest.importorskip("peft")

CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
OF_ADAPTERS = {
    "lora": {},
    "dora": {"use_dora": True},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "deep": {"target_modules": ["q_proj"], "layers_to_transform": [3]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = save_model("llama", tmp_path_factory.mktemp("base") / "model")
    save_tokenizer(folder, chat_template=CHAT)
    return folder


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, base):
    made = tmp_path_factory.mktemp("tuned")
    found = {n: trained(made / n, base, 5, **how) for n, how in OF_ADAPTERS.items()}
    return found | {n: trained(made / n, base, 5, n) for n in ("loha", "lokr")}


def entries(base, tuned, merged=True, **changes):
    """A model of each adapter, of two at once, and of none, in a chat too."""
    worn = {n: given(folder) for n, folder in tuned.items()}
    worn["two"] = [given(tuned["lora"]), given(tuned["loha" if merged else "deep"])]
    found = {
        n: model_entry(base, adapter=a, merge_adapters=merged, **changes) for n, a in worn.items()
    }
    chat = model_entry(base, chat={"user": "{text}"}, **changes)
    return {"before": model_entry(base, **changes), **found, "chat": chat,
            "after": model_entry(base, max_length=20, **changes)}  # fmt: skip


def planned(cache, of_models, wanted=None):
    """The config, its texts and the plan of all their activations."""
    wanted = wanted or {"sites": ["embed", "resid_post.1", "resid_post.3"],
                        "positions": ["last", "mean"]}  # fmt: skip
    config = configs.resolve(
        {
            "experiment": "e",
            "cache_dir": str(cache),
            "threads": {"activations": 1},
            "max_memory": 1 << 30,
            "models": of_models,
            "activations": [{"model": m, **wanted} for m in of_models],
        }
    )
    texts = [write_texts(cache), write_texts(cache, "more", ["ab", "a longer row", "c" * 40])]
    found = models.targets(config, {"texts": texts}, keys.DigestMemo(cache))
    return config, plan.make(config, found, [t.path for t in found])


def make(cache, of_models, wanted=None):
    config, made = planned(cache, of_models, wanted)
    for batch in made.batches:
        run_batch(batch, config, 1)
    return made


def test_one_job_that_loads_once(tmp_path, base, tuned, monkeypatch):
    loads, original = [], load.load_model

    def counted(*args):
        loads.append(args)
        return original(*args)

    monkeypatch.setattr(load, "load_model", counted)
    made = make(tmp_path, entries(base, tuned))
    assert len(loads) == len(made.batches) == 1
    assert made.batches[0].loader == "before and 10 more"
    assert {t.loader for t in made.targets.values() if t.stage == "activations"} == {
        made.batches[0].loader
    }


@pytest.mark.parametrize("merged", [True, False])
def test_the_bytes_are_those_of_a_load_for_each(tmp_path, base, tuned, merged):
    of_models = entries(base, tuned, merged)
    together = make(tmp_path / "together", of_models)
    for name, entry in of_models.items():
        [batch] = make(tmp_path / "alone", {name: entry}).batches
        assert batch.loader == name
        for t in batch.targets:
            shared = Path(t.path.replace("/alone/", "/together/"))
            assert shared.read_bytes() == Path(t.path).read_bytes(), t.name
    assert len(together.batches[0].targets) == 2 * 6 * len(of_models)


@pytest.mark.parametrize("merged", [True, False])
def test_an_adapter_is_taken_off_whole(base, tuned, merged):
    module = load_whole(base)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    storage = {k: v.data_ptr() for k, v in module.state_dict().items()}
    attributes = [(m, dict(vars(m))) for m in module.modules()]
    for name, folder in tuned.items():
        worn = [adapters.Adapter(folder, name, 1.0)]
        with (
            pytest.raises(BadInput),
            adapters.worn(module, worn, merged, "m", keep=True) as changed,
        ):
            seen = {k: v.clone() for k, v in changed.state_dict().items()}
            raise BadInput("in the midst of it")
        assert seen.keys() != state.keys() or any((seen[k] != v).any() for k, v in state.items())
        now = module.state_dict()
        assert now.keys() == state.keys()
        assert all(torch.equal(now[k], v) for k, v in state.items())
        assert {k: v.data_ptr() for k, v in now.items()} == storage
        assert [m for m, _ in attributes] == list(module.modules())
        for m, before in attributes:
            assert vars(m).keys() == before.keys()


def load_whole(base):
    import transformers

    return transformers.AutoModel.from_pretrained(base).eval().requires_grad_(False)


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "bfloat16"}, {"layer_list": "layers"}, {"weights": "random"},
     {"attn_implementation": "eager"}, {"device_map": {"": "cpu"}}],
    ids=str,
)  # fmt: skip
def test_what_is_loaded_otherwise_is_another_job(tmp_path, base, tuned, changes):
    of_models = {"a": model_entry(base), "b": model_entry(base, **changes)}
    of_models["c"] = model_entry(base, adapter=given(tuned["lora"]))
    _, made = planned(tmp_path, of_models)
    assert sorted(b.loader for b in made.batches) == ["a and 1 more", "b"]


def test_other_weights_are_another_job(tmp_path, base):
    of_models = {"a": model_entry(base), "b": model_entry(shutil.copytree(base, tmp_path / "m"))}
    [batch] = planned(tmp_path / "x", of_models)[1].batches  # another folder, the same weights
    assert len(batch.targets) == 24
    of_models["b"] = model_entry(save_model("qwen2", tmp_path / "n"))
    assert len(planned(tmp_path / "y", of_models)[1].batches) == 2


def test_only_what_lacks_is_made_of_some_models(tmp_path, base, tuned):
    of_models = entries(base, tuned)
    first = make(tmp_path, {"lora": of_models["lora"]})
    stamps = {t.path: Path(t.path).stat().st_mtime_ns for t in first.batches[0].targets}
    second = make(tmp_path, of_models)
    assert not {t.args.model for t in second.batches[0].targets} & {"lora"}
    assert stamps == {p: Path(p).stat().st_mtime_ns for p in stamps}


def test_a_killed_job_goes_on_with_the_model_that_it_left(tmp_path, base, tuned, monkeypatch):
    of_models = {n: e for n, e in entries(base, tuned).items() if n in ("before", "lora", "loha")}
    whole = make(tmp_path / "whole", of_models)
    forward, calls = extract.forward, [0]

    def killed(*args, **kwargs):
        calls[0] += 1
        if calls[0] % 7 == 0:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(extract, "forward", killed)
    for _ in range(60):
        config, made = planned(tmp_path / "killed", of_models)
        plan.take_over(made)
        config, made = planned(tmp_path / "killed", of_models)
        if not made.batches:
            break
        try:
            for batch in made.batches:
                run_batch(batch, config, 1)
        except KeyboardInterrupt:
            continue
    assert not made.batches and calls[0] > 21
    for t in whole.batches[0].targets:
        assert Path(t.path).read_bytes() == Path(t.path.replace("whole", "killed")).read_bytes()


def test_the_estimate_counts_weights_once_and_copies(tmp_path, base, tuned):
    def of(names, **changes):
        found = entries(base, tuned, **changes)
        _, made = planned(tmp_path / "e", {n: found[n] for n in names})
        [batch] = made.batches
        return costs.Estimator(made).cost(batch)

    one, several = of(["before"]), of(["before", "lora", "dora"])
    assert one.mem_mb <= several.mem_mb <= one.mem_mb + 2
    assert several.disk_bytes == 3 * one.disk_bytes
    assert several.cpu_seconds < 2 * one.cpu_seconds
    header = store.read_header  # the module of each is that of its model
    t = next(iter(make(tmp_path / "f", {"m": entries(base, tuned)["lora"]}).batches[0].targets))
    assert header(t.path)["facts"]["peft"] == peft.__version__
    assert models.load_activations(t.path).shape[1] == D
