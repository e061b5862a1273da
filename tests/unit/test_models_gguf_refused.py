"""GGUF files that cannot be used are refused by name, nearly all of them in the plan."""

import random
import struct

import gguf_files as files
import gguf_models as models
import numpy as np
import pytest
from models_tiny import make_config, write_texts

from actprobe.base.errors import ActprobeError, BadInput, ConfigError
from actprobe.cache import plan
from actprobe.experiment import targets as experiment
from actprobe.files import gguf as headers
from actprobe.files import limits
from actprobe.models.gguf.pre_tokenizers import PRE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("gguf")
    models.tiny(found)
    return found


@pytest.fixture(scope="module")
def model(folder):
    """Values and tensors of a file that is right."""
    found = models.load(folder)
    return files.values_of(found), files.tensors_of(found)


@pytest.fixture
def tiny(folder, tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes((folder / "tiny.gguf").read_bytes())
    return path


def planned(tmp_path, source, **changes):
    config = make_config(tmp_path / "cache", models.entry(source, **changes), models.WANTED)
    return config, models.targets(config, write_texts(tmp_path / "cache"))


def refused(tmp_path, source, message, **changes):
    """The plan refuses the source with this message."""
    with pytest.raises(ConfigError, match=message) as e:
        planned(tmp_path, source, **changes)
    return str(e.value)


def refused_by_the_job(tmp_path, source, message):
    """The conversion refuses the source, names the model, and leaves nothing behind."""
    config, found = planned(tmp_path, source)
    made = plan.make(config, found, [t.path for t in found])
    with pytest.raises(ActprobeError, match=r"^models\.m: .*" + message):
        experiment.run(made.in_order()[0], config, 1)
    assert not list((tmp_path / "cache" / "weights").glob("*"))


def written(tmp_path, model, tensors=None, **changes):
    values, all_tensors = model
    return files.write(tmp_path / "w.gguf", {**values, **changes}, tensors or all_tensors)


# -- files that are damaged


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.05, 0.2, 0.6, 0.99])
def test_a_file_that_is_cut_short(tmp_path, tiny, share):
    data = tiny.read_bytes()
    tiny.write_bytes(data[: int(share * len(data))])
    said = refused(tmp_path, tiny, r"models\.m\.source: .*tiny\.gguf")
    assert "cut short" in said or "it has 0 bytes" in said or "it has" in said


def test_a_file_that_is_something_else(tmp_path, tiny):
    tiny.write_bytes(b"PK\3\4" + bytes(1000))
    refused(tmp_path, tiny, r"no GGUF file: it begins with b'PK")


def test_big_endian_and_unknown_versions(tmp_path, tiny):
    data = tiny.read_bytes()
    tiny.write_bytes(data[:4] + struct.pack(">I", 3) + data[8:])
    refused(tmp_path, tiny, "GGUF in big-endian byte order; expected version 2 or 3")
    tiny.write_bytes(data[:4] + struct.pack("<I", 9) + data[8:])
    refused(tmp_path, tiny, "GGUF version 9")


@pytest.mark.parametrize(
    ("at", "message"), [(8, "tensors in the GGUF header"), (16, "values in the GGUF header")]
)
def test_a_header_that_lies_about_its_counts(tmp_path, tiny, at, message):
    data = bytearray(tiny.read_bytes())
    data[at : at + 8] = struct.pack("<Q", 1 << 60)
    tiny.write_bytes(data)
    refused(tmp_path, tiny, message)


def test_a_header_that_lies_about_the_place_of_a_tensor(tmp_path, tiny):
    data = bytearray(tiny.read_bytes())
    name = b"blk.0.attn_q.weight"
    at = data.index(name) + len(name) + 4 + 16 + 4
    data[at : at + 8] = struct.pack("<Q", 1 << 40)
    tiny.write_bytes(data)
    refused(tmp_path, tiny, r"cut short, or its header lies: tensor 'blk\.0\.attn_q\.weight'")
    data[at : at + 8] = struct.pack("<Q", 0)
    tiny.write_bytes(data)
    refused(tmp_path, tiny, "begins inside another one")


def test_a_header_that_lies_about_a_string(tmp_path, tiny):
    data = bytearray(tiny.read_bytes())
    at = data.index(b"general.architecture") + 20 + 4
    data[at : at + 8] = struct.pack("<Q", 1 << 62)
    tiny.write_bytes(data)
    refused(tmp_path, tiny, "characters of a name or value")


def test_bytes_behind_the_last_tensor(tmp_path, tiny):
    tiny.write_bytes(tiny.read_bytes() + bytes(limits.GGUF_PADDING + 1))
    refused(tmp_path, tiny, "bytes behind its last tensor belong to none")


def test_no_flipped_byte_of_a_header_is_more_than_a_refusal(tiny):
    """1,000 headers with flipped bytes: read or refused, in no time and little memory."""
    data, rng = tiny.read_bytes(), random.Random(0)
    end = data.rindex(b"output_norm.weight") + 60
    refusals = 0
    for _ in range(1000):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 8))):
            changed[rng.randrange(end)] = rng.randrange(256)
        tiny.write_bytes(changed)
        try:
            with open(tiny, "rb") as f:
                headers.read_header(f, len(changed), "x")
        except BadInput:
            refusals += 1
    assert refusals > 300


# -- headers that do not fit the tensors


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("block_count", 1_000_000, r"states 1,000,000 layers, and layer 4 has no tensors"),
        ("block_count", 3, r"states 3 layers, and there are 4"),
        ("embedding_length", 1 << 30, r"states embedding_length 1,073,741,824, and token_embd"),
        ("attention.head_count", 0, r"llama\.attention\.head_count is 0; expected a whole number above"),
        ("expert_count", 8, r"llama\.expert_count is 8; expected 0: experts \(Mixtral\)"),
        ("rope.scaling.type", "dynamic", r"rope\.scaling\.type is 'dynamic'; expected none, linear"),
        ("attention.layer_norm_rms_epsilon", None, r"has no llama\.attention\.layer_norm_rms_epsilon"),
        ("logit_scale", 0.5, r"sets llama\.logit_scale to 0\.5 .*not understood for this architecture"),
    ],
)  # fmt: skip
def test_a_header_that_does_not_fit(tmp_path, model, key, value, message):
    refused(tmp_path, written(tmp_path, model, **{f"llama.{key}": value}), message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("feed_forward_length", 1 << 30, r"blk\.0\.ffn_gate\.weight \(48, 32\), expected \(107374"),
        ("attention.key_length", 16, r"expected|value_length"),
        ("attention.head_count_kv", 4, r"blk\.0\.attn_k\.weight \(16, 32\), expected \(32, 32\)"),
    ],
)  # fmt: skip
def test_sizes_that_no_tensor_has_are_refused_before_anything_is_allocated(
    tmp_path, model, key, value, message
):
    path = written(tmp_path, model, **{f"llama.{key}": value})
    try:
        refused_by_the_job(tmp_path, path, message)
    except ConfigError as e:
        assert "expected" in str(e)


def test_a_missing_tensor(tmp_path, model):
    values, tensors = model
    fewer = {k: v for k, v in tensors.items() if k != "blk.2.attn_v.weight"}
    path = files.write(tmp_path / "w.gguf", values, fewer)
    refused_by_the_job(tmp_path, path, r"missing tensors: there is none for .*2\.self_attn\.v_proj")
    fewer = {k: v for k, v in tensors.items() if k != "token_embd.weight"}
    refused(tmp_path, files.write(path, values, fewer), "missing tensor token_embd.weight")
    fewer = {k: v for k, v in tensors.items() if not k.startswith("blk.1.")}
    refused(tmp_path, files.write(path, values, fewer), "layer 1 has no tensors")


def test_a_tensor_without_a_place(tmp_path, model):
    values, tensors = model
    more = {**tensors, "blk.0.attn_sinks.weight": np.ones(4, np.float32)}
    refused_by_the_job(
        tmp_path,
        files.write(tmp_path / "w.gguf", values, more),
        r"no place for tensor blk\.0\.attn_sinks",
    )


def test_numbers_that_are_none(tmp_path, model):
    values, tensors = model
    bad = {**tensors, "output_norm.weight": np.full(32, np.nan, np.float32)}
    refused_by_the_job(
        tmp_path, files.write(tmp_path / "w.gguf", values, bad), "holds what is no number"
    )


def test_rotary_factors_that_no_config_can_say(tmp_path, model):
    values, tensors = model
    odd = {**tensors, "rope_freqs.weight": np.array([1, 3, 2, 5], np.float32)}
    refused_by_the_job(
        tmp_path, files.write(tmp_path / "w.gguf", values, odd), "rotary factors in rope_freqs"
    )


# -- what is not read


def test_an_unknown_architecture(tmp_path, model):
    values, tensors = model
    values = {**values, "general.architecture": "rwkv7"}
    said = refused(
        tmp_path, files.write(tmp_path / "w.gguf", values, tensors),
        r"its architecture is 'rwkv7', which is not read from GGUF; expected one of bloom, .*starcoder2"
    )  # fmt: skip
    assert "hub:ORG/NAME" in said


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pre", "my-own", r"its pre-tokenizer is 'my-own' .*not known.*Known: .*smollm"),
        ("pre", None, r"names no pre-tokenizer .*from before May 2024"),
        ("model", "bert", r"its tokenizer is of kind 'bert'.*expected gpt2"),
        ("tokens", None, "holds no vocabulary"),
        ("tokens", ["a"] * 301, "vocabulary has 301 tokens, and there are 300 embeddings"),
    ],
)
def test_a_tokenizer_that_cannot_be_built_with_certainty(tmp_path, model, key, value, message):
    refused(tmp_path, written(tmp_path, model, **{f"tokenizer.ggml.{key}": value}), message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokens", ["a"] * 259, "names a token twice"),
        ("merges", None, "holds no merges"),
    ],
)
def test_a_vocabulary_that_cannot_be_used(tmp_path, model, key, value, message):
    path = written(tmp_path, model, **{f"tokenizer.ggml.{key}": value})
    refused_by_the_job(tmp_path, path, message)


def test_a_type_that_the_reader_cannot_dequantise(tmp_path, tiny):
    data = bytearray(tiny.read_bytes())
    name = b"blk.0.attn_q.weight"
    at = data.index(name) + len(name) + 4 + 16
    data[at : at + 4] = struct.pack("<I", 4)  # Q4_2, which was given up
    tiny.write_bytes(data)
    refused(tmp_path, tiny, r"tensor 'blk\.0\.attn_q\.weight' has type 4; expected one of F32, F16")


def test_every_pre_tokenizer_is_a_pattern_that_the_library_takes():
    from tokenizers import Regex

    for name, pre in PRE.items():
        for pattern in pre.patterns:
            Regex(pattern), name


# -- pieces


def test_pieces_out_of_order(tmp_path, tiny):
    a, b, c = map(str, files.cut(tiny, 3))
    refused(
        tmp_path, [b, a, c], r"out of order: .*part_1\.bin is the first, and stands behind .*part_2"
    )
    refused(
        tmp_path,
        [a, c, b],
        r"out of order, by the numbers in their names: part_2\.bin stands behind",
    )


def test_pieces_out_of_order_whose_names_do_not_say(tmp_path, model):
    """The tail of the header lies in the second piece: what is read there makes no sense."""
    values, tensors = model
    path = files.write(tmp_path / "w.gguf", values, tensors)
    data = path.read_bytes()
    for name, low, high in (("x", 0, 5000), ("y", 5000, 9000), ("z", 9000, None)):
        (tmp_path / name).write_bytes(data[low:high])
    with pytest.raises(ActprobeError):
        planned(tmp_path, [str(tmp_path / n) for n in "xzy"])


def test_a_piece_that_is_missing(tmp_path, tiny):
    a, b, _ = map(str, files.cut(tiny, 3))
    refused(tmp_path, [a, b], "cut short")
    refused(tmp_path, [a, str(tmp_path / "none.bin")], r"none\.bin is not there")
    refused(tmp_path, [b, b], "it is no GGUF file, nor are the other pieces the first")


def test_files_of_llama_cpp_s_split(tmp_path, model):
    first, second = files.split(*model, tmp_path)
    refused(tmp_path, second, r"is file 2 of 2; write the first, model-00001-of-00002\.gguf")
    refused(tmp_path, [str(second), str(first)], r"out of order, by the numbers in their names")
    other = first.rename(tmp_path / "z.gguf")
    refused(tmp_path, [str(second), str(other)], r"is file 2 of 2, and stands at place 1")
    first = other.rename(first)
    second.unlink()
    refused(tmp_path, first, r"model-00002-of-00002\.gguf is not there")


def test_one_of_two_files_under_another_name(tmp_path, model):
    first, _ = files.split(*model, tmp_path)
    refused(tmp_path, first.rename(tmp_path / "alone.gguf"), "is one of 2 files, and 1 are given")


def test_files_of_several_kinds(tmp_path, tiny):
    refused(
        tmp_path, [str(tiny), "hub:a/b/c.gguf"], "expected files of one kind, found file and hub"
    )
    refused(tmp_path, ["hub:a/b/c.gguf", "hub:d/b/c.gguf"], "expected files of one repository")


# -- settings that mean nothing here


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subfolder": "x"}, r"models\.m\.subfolder: a GGUF source names its file"),
        ({"revision": "main"}, r"models\.m\.revision: a GGUF file is identified by its digest"),
        ({"remote_code": "0" * 40}, r"models\.m\.remote_code: a GGUF file holds no code"),
        ({"n_layers": 9}, r"models\.m\.n_layers: 9, but its config\.json says 4"),
        ({"chat": {}}, "no tokenizer.chat_template"),
    ],
)
def test_settings_that_mean_nothing_for_a_file(tmp_path, tiny, changes, message):
    refused(tmp_path, tiny, message, **changes)


def test_a_file_that_is_not_there(tmp_path):
    refused(tmp_path, tmp_path / "nothing.gguf", r"nothing\.gguf is not there")
    (tmp_path / "folder.gguf").mkdir()
    refused(tmp_path, tmp_path / "folder.gguf", "is a folder, expected a file")
