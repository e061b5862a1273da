"""A sample of `benchmarks/architectures`, and that the tables of architectures say what it found."""

import csv
import sys
from pathlib import Path

import pytest

from actprobe.models import special_cases
from actprobe.models.architectures import FAMILIES

ARCHITECTURES = Path(__file__).parents[2] / "benchmarks" / "architectures"
sys.path.insert(0, str(ARCHITECTURES))

from check import EQUAL, REFUSED, check  # noqa: E402

# Text parts that AutoModel does not build by themselves: they were tried inside these.
PARTS_OF = {
    "qwen2_5_omni_text": "qwen2_5_omni_thinker",
    "qwen3_omni_moe_text": "qwen3_omni_moe_thinker",
    "paddleocr_vl_text": "paddleocr_vl",
    "clipseg_text_model": "clipseg",
    "xclip_text_model": "xclip",
    "metaclip_2_text_model": "metaclip_2",
    "siglip_text_model": "siglip",
}


@pytest.fixture(scope="module")
def results():
    with (ARCHITECTURES / "results.csv").open(newline="") as f:
        return {row["model_type"]: row for row in csv.DictReader(f)}


def test_every_architecture_is_equal_or_refused(results):
    assert len(results) > 500
    faults = [
        t for t, r in results.items() if r["outcome"] not in (EQUAL, REFUSED, "not buildable")
    ]
    assert faults == []


def test_every_mapped_family_was_tried_with_all_its_sites(results):
    for name in FAMILIES:
        row = results[PARTS_OF.get(name, name)]
        assert row["outcome"] == EQUAL and "attn_out" in row["sites"], name
        assert "resid_pre + attn_out" in row["sums"] or "norm(mlp_in" in row["sums"], name


def test_every_special_case_was_tried(results):
    found = {t: results[t]["outcome"] for t in special_cases.UNREADABLE if t in results}
    assert {t: o for t, o in found.items() if o != REFUSED} == {"layoutlmv2": "not buildable"}
    read = (
        *special_cases.LAYER_LISTS, *special_cases.FORMS, *special_cases.UNPADDED,
        *special_cases.STATES_BEHIND,
    )  # fmt: skip
    assert all(results[t]["outcome"] == EQUAL for t in read if t != "idefics")


# Of each layout one: layers that give lists, an encoder of two stacks, shared layers, layers that
# pad by themselves, no mask, states behind a layer, layers of two kinds, the text part of a pair.
LAYOUTS = ("openai-gpt", "t5", "albert", "longformer", "fnet", "mamba", "lfm2", "clip")


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_c6_layouts_that_are_read(model_type, tmp_path):
    found = check(model_type, tmp_path)
    refused = [w for w in found.refused_ways if (model_type, w[:5]) != ("fnet", "half:")]
    assert (found.outcome, refused) == (EQUAL, [])  # no FFT in bfloat16


@pytest.mark.parametrize(
    ("model_type", "where", "message"),
    [
        ("deepseek_v4", "plan", "carries 4 residual streams side by side"),
        ("paligemma", "job", "padding or the other rows change it"),
    ],
)
def test_a5_architectures_that_are_refused(model_type, where, message, tmp_path):
    found = check(model_type, tmp_path)
    assert (found.outcome, found.where) == (REFUSED, where) and message in found.reason
