"""Probes that watch a model while it runs: the same scores as of whole rows, token by token."""

from __future__ import annotations

import copy

import face_made
import numpy as np
import pytest
import torch
import transformers

import actprobe
from actprobe.base.errors import ActprobeError, BadInput
from actprobe.face import streams

SOURCE = face_made.SOURCE
TEXTS = [
    "a cat",
    "the red dog sees the house near the tree",
    "cat cat",
    "x",
    "the old blue house 7",
]
CLOSE = 1e-5


@pytest.fixture(scope="module")
def folder():
    return face_made.once().parent


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture(scope="module")
def run(folder):
    return actprobe.load(folder / "config.yaml")


@pytest.fixture(scope="module")
def probes(run):
    of = [
        ("mean", "logreg"),
        ("last", "logreg"),
        ("max", "logreg"),
        ("tokens", "attention"),
        ("mean", "mlp"),
    ]
    return [run.probe("a", f"{SOURCE}.{position}", method) for position, method in of]


@pytest.fixture(scope="module")
def model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "model")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder / "model")


def generate(model, inputs, n=12):
    return model.generate(**inputs, max_new_tokens=n, do_sample=False, pad_token_id=2)


def test_a_pass_over_padded_rows_gives_the_scores_of_the_texts(probes, model, tokenizer):
    with actprobe.attach(probes, model, tokenizer) as watch:
        model(**watch.inputs(TEXTS))
    for n, probe in enumerate(probes):
        assert np.abs(watch.now(n) - probe.score_texts(TEXTS)).max() < CLOSE, probe


def test_each_token_has_the_score_of_its_row_so_far_whatever_the_batch(probes, model, tokenizer):
    with actprobe.attach(probes, model, tokenizer) as watch:
        inputs = watch.inputs(TEXTS)
        out = generate(model, inputs)
    for row in range(len(TEXTS)):
        skip = int((inputs["attention_mask"][row] == 0).sum())
        ids = out[row, skip:-1]
        new = ids[len(ids) + 1 - 12 :]
        if (ends := (new == tokenizer.eos_token_id).nonzero()).numel():
            ids = ids[: len(ids) + 1 - 12 + int(ends[0]) + 1]
        with actprobe.attach(probes, model, tokenizer) as alone:
            model(ids[None])
        for n in range(len(probes)):
            a, b = watch.scores(n)[row], alone.scores(n)[0]
            assert a.shape == b.shape == (len(ids),)
            assert np.isnan(a).tolist() == np.isnan(b).tolist()
            assert np.nanmax(np.abs(a - b)) < CLOSE
    table = watch.table(1)
    assert table.groupby("row")["generated"].sum().max() == 11
    assert table["score"].iloc[-1] == watch.scores(1)[-1][-1]


def test_padding_on_the_right_counts_no_more_than_on_the_left(probes, model, tokenizer):
    with actprobe.attach(probes[:2], model, tokenizer) as watch:
        inputs = watch.inputs(TEXTS)
        n = inputs["attention_mask"].sum(dim=1)
        right = torch.stack(
            [torch.roll(r, int(k)) for r, k in zip(inputs["input_ids"], n, strict=True)]
        )
        mask = torch.arange(right.shape[1]) < n[:, None]
        model(right, attention_mask=mask.long())
    for i, probe in enumerate(probes[:2]):
        assert np.abs(watch.now(i) - probe.score_texts(TEXTS)).max() < CLOSE


@pytest.mark.parametrize(
    ("how", "expected"),
    [({"by": "last"}, lambda z: z[-1]), ({"by": "mean"}, np.mean), ({"by": "max"}, np.max),
     ({"by": "ema", "alpha": 0.3}, lambda z: ema(z, 0.3, z[0])[-1]),
     ({"by": "ema", "alpha": 0.1, "start": 0.0, "largest": True}, lambda z: max(ema(z, 0.1, 0.0)))],
)  # fmt: skip
def test_monitors_say_what_their_formulas_say(probes, model, tokenizer, how, expected):
    probe = probes[0]
    with probe.attach(model, tokenizer, **how) as watch:
        generate(model, watch.inputs(TEXTS), 80)
    with probe.attach(model, tokenizer, by="last") as plain:
        generate(model, plain.inputs(TEXTS), 80)
    for row, whole in enumerate(plain.scores()):
        steps = np.flatnonzero(np.isfinite(whole))
        ids = plain.table().query("row == @row")["id"].to_numpy()
        counted = [t for t in steps if ids[t] not in tokenizer.all_special_ids and t > 0]
        z = np.log(whole[counted] / (1 - whole[counted]))
        said = 1 / (1 + np.exp(-expected(z)))
        assert watch.now()[row] == pytest.approx(said, abs=1e-4)


def ema(z, alpha, start):
    found, state = [], start
    for value in z:
        state = alpha * value + (1 - alpha) * state
        found.append(state)
    return found


def test_the_reference_numbers_of_exponential_averages():
    z = torch.tensor([-2.0, 1, 3, -1, 0, 2, 2, -3])[None, :, None]
    counts = torch.ones(1, 8, dtype=torch.bool)
    zero = streams.Ema(0.5, 0.0)(z, counts)[0, :, 0]
    assert zero.tolist() == [-1, 0, 1.5, 0.25, 0.125, 1.0625, 1.53125, -0.734375]
    first = streams.Ema(0.5)(z, counts)[0, :, 0]
    assert first.tolist() == [-2, -0.5, 1.25, 0.125, 0.0625, 1.03125, 1.515625, -0.7421875]
    assert streams.Ema(0.1, 0.0, True)(z, counts)[0, -1, 0] == pytest.approx(0.4566908, abs=1e-6)


@pytest.mark.parametrize("make", [streams.Last, streams.Mean, streams.Max, streams.Ema])
def test_a_stream_in_pieces_is_the_stream_in_one(make):
    torch.manual_seed(0)
    z, counts = torch.randn(3, 150, 2), torch.rand(3, 150) > 0.3
    whole, parts = make()(z, counts), make()
    cut = [
        parts(*p)
        for p in zip(z.split([90, 1, 1, 58], 1), counts.split([90, 1, 1, 58], 1), strict=True)
    ]
    assert torch.allclose(torch.cat(cut, 1), whole, atol=1e-5, equal_nan=True)


def test_online_attention_loses_no_early_score():
    asked = torch.tensor([[0.0, 1.0, 200.0]])
    said = torch.tensor([[3.0, -1.0, 0.5]])
    found = streams.Attention()(asked, said, torch.ones(1, 3, dtype=torch.bool))
    second = (3 - np.e) / (1 + np.e)
    assert found[0].tolist() == pytest.approx([3.0, second, 0.5], abs=1e-5)


def test_the_state_does_not_grow(probes, model, tokenizer):
    with probes[0].attach(model, tokenizer, history=False) as watch:
        generate(model, watch.inputs(TEXTS), 30)
    assert len(watch._steps) == 1 and watch.now().shape == (5,)
    with pytest.raises(ActprobeError, match="history=True"):
        watch.scores()


def test_another_model_is_refused_with_both_names(probes, model, tokenizer, folder, tmp_path):
    other = copy.deepcopy(model)
    other.config._name_or_path = ""
    with pytest.raises(BadInput, match=r"model: the probe tiny .*does not say which files"):
        probes[0].attach(other, tokenizer)
    with probes[0].attach(other, tokenizer, override="a trial") as watch:
        other(**watch.inputs(["a cat"]))
    assert "(a trial)" in watch.overridden[0] and watch.overridden[0] in probes[0].card.overrides
    changed = transformers.LlamaForCausalLM(model.config)
    changed.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    changed = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "other")
    with pytest.raises(BadInput, match=r"model: the probe tiny .*the data .*other.*tokenizer"):
        probes[1].attach(changed, tokenizer)


def test_what_cannot_be_streamed_is_refused(run, probes, model, tokenizer):
    with pytest.raises(ActprobeError, match="neighbours cannot be streamed"):
        run.probe("a", f"{SOURCE}.mean", "knn").attach(model, tokenizer)
    with pytest.raises(ActprobeError, match="reads latents"):
        run.probe("a", "codes", "ksparse_b", k=5).attach(model, tokenizer)
    with pytest.raises(ActprobeError, match="expected one of last, mean, max, ema"):
        probes[0].attach(model, tokenizer, by="median")
    with (
        pytest.raises(ActprobeError, match="has not run yet"),
        probes[0].attach(model, tokenizer) as w,
    ):
        w.now()


def test_hooks_are_gone_after_the_block(probes, model, tokenizer):
    before = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    with pytest.raises(ZeroDivisionError), actprobe.attach(probes, model, tokenizer):
        raise ZeroDivisionError
    after = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    assert before == after
