"""Top contexts: the strongest examples of a latent, checked against the dense way."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from configs import edited
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from actprobe import config as configuration
from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.base.keys import DigestMemo
from actprobe.cache import store
from actprobe.cache.plan import Batch, Target
from actprobe.contexts import run
from actprobe.contexts import table as table_of
from actprobe.contexts.pages import render, write_page
from actprobe.contexts.table import SCHEMA, Entries, choose, strongest, top_contexts, words
from actprobe.contexts.targets import VERSION, page, targets
from actprobe.sae.records import LatentArgs, LocalPlace

ROOT = Path(__file__).resolve().parents[1]
OFFSETS = np.array([0, 3, 3, 10, 14, 20])
TEXT = [f"Ġt{i}" for i in range(20)]


def codes(seed: int = 0, n: int = 20, width: int = 6) -> np.ndarray:
    """Sparse codes with ties, float32 [n, width]."""
    chance = np.random.default_rng(seed)
    return (chance.integers(0, 4, (n, width)) * (chance.random((n, width)) < 0.5)).astype("f4")


def artefact(path: Path, z: np.ndarray, kind: str) -> Path:
    """Codes as latents (CSR) or as activations, with tokens and their strings."""
    ids = np.arange(20, dtype=np.int32)
    found = {"offsets": OFFSETS, "token_ids": ids}
    found["vocabulary"] = np.frombuffer("".join(TEXT).encode(), np.uint8)
    found["vocabulary_offsets"] = np.cumsum([0, *(len(t.encode()) for t in TEXT)])
    if kind == "dense":
        found["x"] = z
    else:
        m = csr_array(z)
        found |= {"data": m.data, "indices": m.indices, "indptr": m.indptr.astype(np.int64)}
        found["shape"] = np.array(z.shape)
    store.publish([path], [store.write_h5(path, found, {"kind": kind})])
    return path


def brute(z: np.ndarray, latent: int, k: int) -> list[tuple[int, int, float]]:
    """(example, token row, value) of the k strongest examples, the plain way."""
    best = []
    for e, (a, b) in enumerate(itertools.pairwise(OFFSETS)):
        if b > a and z[a:b, latent].max() > 0:
            at = int(z[a:b, latent].argmax())
            best.append((e, int(a) + at, float(z[a + at, latent])))
    return sorted(best, key=lambda c: (-c[2], c[1]))[:k]


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("entries", [1 << 20, 7, 1])
def test_the_table_agrees_with_the_dense_way(tmp_path, monkeypatch, kind, entries):
    monkeypatch.setattr(table_of, "_ENTRIES", entries)
    monkeypatch.setattr(table_of, "_TOKENS", 6)
    z = codes()
    with store.open_h5(artefact(tmp_path / "a.h5", z, kind)) as f:
        table = top_contexts(f, f["offsets"][:], words(f, None), 4, 3, 2).to_pylist()
    totals = z.sum(axis=0)
    expected = np.argsort(-totals, kind="stable")[:4].tolist()
    assert list(dict.fromkeys(r["latent"] for r in table)) == expected
    for latent in expected:
        rows = [r for r in table if r["latent"] == latent]
        wanted = brute(z, latent, 3)
        assert [(r["example"], r["value"]) for r in rows] == [(e, v) for e, _, v in wanted]
        assert [r["rank"] for r in rows] == list(range(len(rows)))
        for r, (e, token, _) in zip(rows, wanted, strict=True):
            low, high = max(OFFSETS[e], token - 2), min(OFFSETS[e + 1], token + 3)
            assert r["tokens"] == TEXT[low:high]
            assert r["values"] == z[low:high, latent].tolist()
            assert (r["peak"], r["position"]) == (token - low, token - OFFSETS[e])
            assert r["total"] == totals[latent]
            assert r["frequency"] == (z[:, latent] != 0).mean()


@given(
    found=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 19), st.integers(1, 4)), max_size=40
    ),
    cut=st.integers(0, 40),
    k=st.integers(1, 3),
)
@settings(max_examples=100)
def test_the_strongest_of_pieces_are_the_strongest_of_all(found, cut, k):
    def make(rows: list[Any]) -> Entries:
        columns = np.array(rows, np.int64).reshape(-1, 3).T
        return Entries(columns[0], columns[1], columns[2].astype(np.float32))

    whole = strongest(make(found), OFFSETS, k)
    pieces = strongest(strongest(make(found[:cut]), OFFSETS, k) + make(found[cut:]), OFFSETS, k)
    for name in ("latent", "token", "value"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name))


def test_latents_are_chosen_by_sum_or_by_number():
    total = np.array([1.0, 5.0, 0.0, 5.0, -2.0])
    assert choose(total, 10).tolist() == [1, 3, 0]
    assert choose(total, 2).tolist() == [1, 3]
    assert choose(total, [4, 2]).tolist() == [4, 2]
    with pytest.raises(BadInput, match="latent 5, expected 0 to 4"):
        choose(total, [1, 5])


def test_rows_must_be_tokens(tmp_path):
    with (
        store.open_h5(artefact(tmp_path / "a.h5", codes(), "csr")) as f,
        pytest.raises(BadInput, match="20 rows, but 19 tokens"),
    ):
        top_contexts(f, np.array([0, 19]), str, 1, 1, 1)


def test_token_ids_get_their_text_from_a_tokenizer(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({"a": 0, "Ġb": 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["token_ids"] = np.array([1, 0, 99, -1])
        named = words(f, str(tmp_path / "tokenizer.json"))
        assert [named(i) for i in range(3)] == ["Ġb", "a", "99"]
        assert [words(f, None)(i) for i in range(4)] == ["1", "0", "99", "·"]


# --- targets, the stage, the page


def source(path: Path, stage: str, name: str, **args: Any) -> Target:
    names = {"source": name, "model": "m", "site": "resid_post.1", "position": "tokens"}
    if stage == "latents":
        args |= {"sae": LocalPlace(path="sae", format="saelens"), "extracted": False}
    kind = LatentArgs if stage == "latents" else dict
    return Target(stage, "l", "ds", name, str(path), "k" * 64, {}, args=kind(**names | args))


def config(folder: Path, *wanted: dict[str, Any]) -> dict[str, Any]:
    return configuration.resolve(
        {
            "cache_dir": str(folder / "cache"),
            "results_dir": str(folder / "results"),
            "experiment": "e",
            "top_contexts": list(wanted),
        }
    )


def test_targets_by_pattern(tmp_path):
    memo = DigestMemo(tmp_path)
    known = {
        "assemble_latents": [source(tmp_path / "d.h5", "assemble_latents", "dump.resid_pre.2")],
        "activations": [
            source(tmp_path / "t.h5", "activations", "m/resid_post.1.tokens"),
            source(tmp_path / "l.h5", "activations", "m/resid_post.1.last", position="last"),
        ],
        "latents": [
            source(tmp_path / "s.h5", "latents", "sae", activations=str(tmp_path / "t.h5")),
            source(tmp_path / "o.h5", "latents", "other", activations=str(tmp_path / "l.h5")),
        ],
    }
    everything = targets(config(tmp_path, {"sources": ["*"]}), known, memo)
    names = [t.name for t in everything]
    assert names == ["m/resid_post.1.tokens/ds", "dump.resid_pre.2/ds", "sae/ds"]
    assert everything[2].args.tokens == str(tmp_path / "t.h5")
    assert set(everything[2].inputs) == {str(tmp_path / "s.h5"), str(tmp_path / "t.h5")}
    where = page(config(tmp_path), everything[0].path)
    assert where == f"{tmp_path}/results/e/contexts/m.resid_post.1.tokens.ds.html"
    with pytest.raises(ConfigError, match="no source with tokens for rows matches 'other'"):
        targets(config(tmp_path, {"sources": ["other"]}), known, memo)
    twice = config(tmp_path, {"sources": ["sae"]}, {"sources": ["sae"], "k": 3})
    with pytest.raises(ConfigError, match="sae/ds is asked for twice"):
        targets(twice, known, memo)


@pytest.fixture
def made(tmp_path) -> tuple[dict[str, Any], Target]:
    path = artefact(tmp_path / "a.h5", codes(), "csr")
    wanted = config(tmp_path, {"sources": ["dump.s"], "latents": 3, "k": 2, "window": 2})
    known = {"assemble_latents": [source(path, "assemble_latents", "dump.s")]}
    [t] = targets(wanted, known, DigestMemo(tmp_path))
    run.run(Batch("r", "top_contexts", "l", (t,)), wanted, 1)
    return wanted, t


def test_the_stage_and_its_golden_digest(made):
    """Change what the stage writes and VERSION in contexts/targets.py must be raised."""
    _, t = made
    header = store.verify(t.path)
    assert header["facts"] == {"source": "dump.s", "dataset": "ds", "n_latents": 6}
    table = store.read_table(t.path)
    assert len({(r["latent"], r["example"]) for r in table.to_pylist()}) == len(table) == 6
    digest = hashlib.sha256(json.dumps(table.to_pydict()).encode()).hexdigest()
    golden = json.loads((ROOT / "golden" / "contexts.json").read_text())["top_contexts"]
    assert {"version": VERSION, "digest": digest} == golden, (
        "the content of top contexts changed: raise VERSION in actprobe/contexts/targets.py "
        "and put the new digest into tests/golden/contexts.json"
    )


def test_b5_a_tokenizer_that_was_changed_after_the_plan_is_refused(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    path = tmp_path / "tokenizer.json"
    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(path))
    known = {
        "assemble_latents": [
            source(artefact(tmp_path / "a.h5", codes(), "csr"), "assemble_latents", "dump.s")
        ]
    }
    wanted = config(tmp_path, {"sources": ["dump.s"], "tokenizer": str(path)})
    [t] = targets(wanted, known, DigestMemo(tmp_path))
    run.require_unchanged(wanted, t)
    Tokenizer(WordLevel({"b": 0}, unk_token="b")).save(str(path))
    with pytest.raises(
        ActprobeError, match=r"tokenizer .*tokenizer\.json was changed after the plan"
    ):
        run.run(Batch("r", "top_contexts", "l", (t,)), wanted, 1)
    assert not Path(t.path).exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [(".", r"is a folder; write .*tokenizer\.json"), ("none.json", "cannot be read: No such file")],
)
def test_a_tokenizer_that_is_not_there_is_named_in_the_plan(tmp_path, given, message):
    wanted = config(tmp_path, {"sources": ["x"], "tokenizer": str(tmp_path / given)})
    with pytest.raises(ConfigError, match=rf"top_contexts\[0\]\.tokenizer: .*{message}"):
        targets(wanted, {}, DigestMemo(tmp_path))


def test_a_tokenizer_that_is_none_is_bad_input(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["token_ids"] = np.zeros(3, np.int32)
        with pytest.raises(BadInput, match=r"tokenizer\.json: no tokenizer\.json that can be read"):
            words(f, str(tmp_path / "tokenizer.json"))


def test_the_page_shows_every_context_and_opens_offline(made):
    wanted, t = made
    where = page(wanted, t.path)
    write_page(t.path, where)
    html = Path(where).read_text()
    table = store.read_table(t.path).to_pylist()
    for latent in {r["latent"] for r in table}:
        assert f'<h2 id="latent-{latent}">' in html
    assert html.count("<li>") == len(table)
    assert html.count("<b") - html.count("<body") == len(table)
    assert not re.search(r"https?://|<script|@import|url\(", html)


def test_tokens_are_escaped_on_the_page():
    row = {"latent": 1, "total": 2.0, "frequency": 0.5, "rank": 0, "example": 0, "position": 0}
    row |= {"value": 2.0, "tokens": ["<script>", "Ġ&"], "values": [2.0, -1.0], "peak": 0}
    html = render(pa.Table.from_pylist([row], schema=SCHEMA), "<s>", "d", 3)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "> &amp;<" in html
    assert "<h1>&lt;s&gt;</h1>" in html


def test_a_source_that_cannot_be_used_leaves_a_page_with_the_reason(tmp_path):
    bad = tmp_path / "a.h5"
    store.publish([bad], [store.write_bad(bad, {}, "no <b>tokens</b>")])
    wanted = edited(config(tmp_path, {"sources": ["dump.s"]}), ["on_bad_dataset"], "skip")
    [t] = targets(
        wanted,
        {"assemble_latents": [source(bad, "assemble_latents", "dump.s")]},
        DigestMemo(tmp_path),
    )
    run.run(Batch("r", "top_contexts", "l", (t,)), wanted, 1)
    write_page(t.path, page(wanted, t.path))
    assert "no &lt;b&gt;tokens" in Path(page(wanted, t.path)).read_text()
