"""Rows that may not share a batch: what a row gives never depends on the rows beside or before it."""

from types import SimpleNamespace

import models_tiny
import numpy as np
import pytest
from models_tiny import TEXTS, tiny_run

from actprobe import models
from actprobe.base.errors import ActprobeError
from actprobe.cache import store
from actprobe.models import together

BORDER = 32
_LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
         "long_factor": [8.0] * 4, "original_max_position_embeddings": BORDER}  # fmt: skip
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
FAMILIES = {
    "longrope": (
        "Phi3Config",
        {
            **models_tiny._GROUPED,
            "rope_parameters": dict(_LONG),
            "original_max_position_embeddings": BORDER,
        },
    ),
    "dynamic": (
        "LlamaConfig",
        {**models_tiny._GROUPED, "rope_parameters": _DYNAMIC, "max_position_embeddings": BORDER},
    ),
    "fnet": ("FNetConfig", {**models_tiny._COMMON, "type_vocab_size": 2}),
}
WANTED = {"sites": ["resid_pre.0", "resid_post.1", "resid_post.3"], "positions": ["last", "mean"]}


@pytest.fixture(autouse=True)
def families(monkeypatch):
    monkeypatch.setattr(models_tiny, "FAMILIES", {**models_tiny.FAMILIES, **FAMILIES})


def read(folder, name, **changes):
    found = tiny_run(folder, family=name, wanted=WANTED, **changes)
    return {k: models.load_activations(t.path) for k, t in found.items()}, found


@pytest.mark.parametrize(("name", "settings"), [
    ("longrope", {}), ("longrope", {"share_prefix": True}), ("fnet", {}),
])  # fmt: skip
def test_a_row_gives_the_same_in_a_batch_and_alone(tmp_path, name, settings):
    texts = ["The same words first: " + t for t in TEXTS]
    batched, found = read(tmp_path, name, texts=texts, max_tokens_per_batch=4096, **settings)
    single, _ = read(tmp_path, name, texts=texts, max_tokens_per_batch=1)
    for site, x in batched.items():
        np.testing.assert_allclose(x, single[site], rtol=0, atol=1e-5 * np.abs(x).max())
    facts = store.read_header(found["resid_post.1.last"].path)["facts"]
    assert facts["shared"] == {"inside": 0, "prefixes": 0, "behind": 0, "tokens_saved": 0}


def test_dynamic_positions_are_refused_beyond_their_limit(tmp_path):
    message = r"row 'row1' has 44 tokens \(3 such rows beyond 32\).* set max_length: 32"
    with pytest.raises(ActprobeError, match=message):
        read(tmp_path, "dynamic", max_length=200)
    assert read(tmp_path, "dynamic")[0]["resid_post.1.last"].shape == (len(TEXTS), 32)


def plan(lengths, budget, pads=True, config=None):
    model = SimpleNamespace(pads=pads, config=SimpleNamespace(to_dict=lambda: config or {}))
    return together.plan(model, np.array(lengths), 0, budget)


def test_batches_of_rows_of_one_length():
    assert plan([3, 7, 7, 2, 9, 7, 3], 14, pads=False) == [[4], [5, 2], [1], [6, 0], [3]]


def test_batches_on_one_side_of_the_border():
    config = {"rope_parameters": _LONG}
    found = plan([40, 20, 33, 32, 5], 1000, config=config)
    assert found == [[0, 2], [3, 1, 4]]
    assert plan([40, 20, 33, 32, 5], 1000) == [[0, 2, 3, 1, 4]]
