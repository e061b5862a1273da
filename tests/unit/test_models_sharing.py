"""Rows that begin alike: read inside each other, or behind a beginning that is computed once."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from models_tiny import by_name, make_config, model_entry, run, save_model, targets, write_texts
from test_models_extract import CAUSAL

from actprobe import models
from actprobe.base.errors import ActprobeError
from actprobe.cache import plan, store
from actprobe.models import extract, session
from actprobe.models.run import run as run_batch
from actprobe.models.sharing import shared
from actprobe.models.tokens import Tokens


@pytest.fixture(autouse=True)
def cheap_passes(monkeypatch):
    """What tiny rows have in common is worth passes of its own."""
    monkeypatch.setitem(session._PASS, "cpu", 4)


WANTED = {
    "sites": ["embed", "resid_post.1", "mlp_out.2"],
    "positions": ["last", "first", "mean", "max", "token.-2", "tokens"],
}
SYSTEM = "be kind and answer briefly. "
TALKS = [
    "why is the sky blue? it scatters light",
    "name a colour. blue",
    "sing me a song. la la la",
]


def conversations() -> list[str]:
    """Rows that are turns of talks, and several answers to each; one is there twice, one alone."""
    found = ["nothing like it"]
    for talk in TALKS:
        first = SYSTEM + talk
        found += [first, first + "; really? yes", first + "; really? yes; sure? very"]
        found += [f"{SYSTEM}{talk}; really? {answer}" for answer in ("no", "yes", "perhaps not")]
    return found


def made_of(rows):
    ids = np.concatenate([np.array(r, np.int32) for r in rows])
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    return Tokens(ids, offsets, np.ones(len(ids), bool), None, 0)


def random_rows(rng):
    """Rows of few letters that go on from each other, part, or are equal."""
    rows: list[list[int]] = []
    for _ in range(rng.randint(1, 12)):
        begin = []
        if rows and rng.random() < 0.7:
            begin = rng.choice(rows)
            begin = begin[: rng.randint(1, len(begin))]
        rows.append(begin + [rng.randint(0, 2) for _ in range(rng.randint(not begin, 20))])
    return rows


def most_saved(rows, computed, begin, members, cost, least=8):
    """What can be saved below a beginning, by trying every set of beginnings, none inside another."""
    own = 0
    if len(begin) >= least and all(len(rows[i]) > len(begin) for i in members):
        own = (len(members) - 1) * len(begin) - 2 * cost
    below: dict[tuple[int, ...], list[int]] = {}
    for i in members:
        if len(rows[i]) > len(begin):
            below.setdefault(tuple(rows[i][: len(begin) + 1]), []).append(i)
    parts = (most_saved(rows, computed, b, m, cost) for b, m in below.items() if len(m) > 1)
    return max(own, 0, sum(parts))


@pytest.mark.parametrize("seed", range(20))
def test_what_is_shared_is_the_most_that_can_be(seed):
    rng = random.Random(seed)
    for _ in range(40):
        rows, cost = random_rows(rng), rng.choice([0, 1, 5])
        found = shared(made_of(rows), np.arange(len(rows)), cost)
        assert found.carrier.keys() == set(range(len(rows)))
        computed = sorted(set(found.carrier.values()))
        for i, c in found.carrier.items():
            assert rows[c][: len(rows[i])] == rows[i] and found.carrier[c] == c
        for i in computed:
            longer = [r for j, r in enumerate(rows) if j in computed and j != i]
            assert all(r[: len(rows[i])] != rows[i] for r in longer)
        assert sorted(np.concatenate([g.rows for g in found.groups]).tolist()) == computed
        saved = 0
        for g in filter(lambda g: g.length, found.groups):
            assert len({tuple(rows[i][: g.length]) for i in g.rows}) == 1
            assert all(len(rows[i]) > g.length for i in g.rows)
            saved += (len(g.rows) - 1) * g.length - 2 * cost
        assert saved == most_saved(rows, computed, (), computed, cost)
        lengths = np.array([len(r) for r in rows])
        inside = sum(len(rows[i]) for i, c in found.carrier.items() if i != c)
        n = sum(1 for g in found.groups if g.length)
        assert found.facts(lengths)["tokens_saved"] == inside + saved + 2 * cost * n


def test_rows_that_are_not_asked_for_are_left_out():
    rows = [[1, 2, 3], [1, 2], [1, 2, 3, 4], [5]]
    found = shared(made_of(rows), np.array([0, 1, 3]), 0)
    assert found.carrier == {0: 0, 1: 0, 3: 3} and found.carried() == {0: [0, 1], 3: [3]}


def both(folder, family, texts, **changes):
    """Activations without sharing and with it, and the facts of the latter."""
    if not (folder / "model").exists():
        save_model(family, folder / "model")
    found = []
    for name, share in (("plain", False), ("shared", True)):
        entry = model_entry(folder / "model", share_prefix=share, **changes)
        config = make_config(folder / name, entry, WANTED)
        found.append(by_name(run(config, write_texts(folder / name, texts=texts))))
    return found


@pytest.mark.parametrize("family", CAUSAL)
def test_the_numbers_are_those_without_sharing(tmp_path, family):
    plain, together = both(tmp_path, family, conversations(), max_tokens_per_batch=200)
    for name, t in plain.items():
        expected, found = (models.load_activations(x.path) for x in (t, together[name]))
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name
        )
    facts = store.read_header(together["embed.last"].path)["facts"]["shared"]
    assert facts["inside"] == 9 and facts["prefixes"] >= 3  # two first turns and one twice, a talk


def test_what_is_computed(tmp_path, monkeypatch):
    passes, original = [], extract._pass

    def spy(model, sites, read, **inputs):
        passes.append(inputs["input_ids"].numel())
        original(model, sites, read, **inputs)

    monkeypatch.setattr(extract, "_pass", spy)
    plain, together = both(tmp_path, "llama", conversations(), max_tokens_per_batch=120)
    n = sum(map(len, conversations())) + len(conversations())  # a BOS in front
    facts = store.read_header(together["embed.last"].path)["facts"]
    assert facts["n_tokens"] == n and facts["shared"]["tokens_saved"] > n / 2
    ids = {t.path: t.spec["share_prefix"] for t in (*plain.values(), *together.values())}
    assert set(ids.values()) == {False, True} and len(ids) == 2 * len(plain)
    assert max(passes) <= 120


def test_a_model_that_looks_back_is_found_out(tmp_path, monkeypatch):
    """One row inside another is no causal row alone, if the model attends to what follows."""
    from actprobe.models import families, trial

    save_model("bert", tmp_path / "model")
    monkeypatch.setattr(families, "needs_mask", lambda config: False)
    monkeypatch.setattr(trial, "_compare", lambda *a: None)
    with pytest.raises(ActprobeError, match="self-check failed"):
        both(tmp_path, "bert", [t for t in conversations() if t[:2] == "be"])


def test_killed_runs_end_bit_identical(tmp_path, monkeypatch):
    save_model("llama", tmp_path / "model")
    entry = model_entry(tmp_path / "model", share_prefix=True, max_tokens_per_batch=20)

    def planned(folder):
        config = make_config(folder, entry, WANTED)
        found = targets(config, write_texts(folder, texts=conversations()))
        return config, plan.make(config, found, [t.path for t in found])

    config, made = planned(tmp_path / "whole")
    for batch in made.batches:
        run_batch(batch, config, 1)
    forward, calls = extract.forward, [0]

    def killed(*args, **kwargs):
        calls[0] += 1
        if calls[0] % 3 == 0:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(extract, "forward", killed)
    monkeypatch.setattr("actprobe.models.dataset._MARK_SECONDS", 0.0)
    for _ in range(40):
        plan.take_over(planned(tmp_path / "killed")[1])
        config, again = planned(tmp_path / "killed")
        if not again.batches:
            break
        try:
            run_batch(again.batches[0], config, 1)
        except KeyboardInterrupt:
            continue
    assert not again.batches and calls[0] > 14
    for path in (p for b in made.batches for p in b.outputs):
        assert Path(path).read_bytes() == Path(path.replace("whole", "killed")).read_bytes()
