"""What a config that does not fit its schema is told."""

import pytest

from actprobe import config
from actprobe.errors import ConfigError

PLAIN = {"experiment": "e", "datasets": [{"name": "a", "path": "a.csv"}]}
SAE = {"model": "m", "site": "resid_post.1"}
SPAN = {"model": "m", "sites": ["embed"], "positions": ["span.a"]}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"datasets": [{"path": "x"}]}, "datasets.0: 'name' and 'names' missing: give one of them"),
        (
            {"datasets": [{"name": "a", "names": ["b"], "path": "x"}]},
            "datasets.0: 'name' and 'names' exclude each other",
        ),
        ({"datasets": ["x"]}, "datasets.0: 'x' is not of type 'object'"),
        ({"saes": {"s": SAE}}, "saes.s: 'source' and 'train' missing: give one of them"),
        ({"saes": {"s": SAE | {"train": None}}}, "saes.s.train: None is not of type 'object'"),
        ({"saes": {"s": SAE | {"train": {"width": 4}}}}, "saes.s.train: 'k' is missing"),
        (
            {"saes": {"s": SAE | {"source": "x", "train": {"width": 4, "k": 2}}}},
            "saes.s: 'source' and 'train' exclude each other",
        ),
        (
            {"dumps": {"d": {"lock": "l", "source": {"artifacts": ["a/b/c:v0"], "run": "a/b/c"}}}},
            "dumps.d.source: 'artifacts' and 'run' exclude each other",
        ),
        (
            {"activations": [SPAN | {"spans": {"a": {"chars": ["x", 1]}}}]},
            "activations.0.spans.a.chars.0: 'x' is not of type 'integer'",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(part, said):
    with pytest.raises(ConfigError) as e:
        config.resolve(PLAIN | part)
    assert str(e.value).splitlines() == ["config:", f"  {said}"]


def test_null_is_as_if_not_given():
    resolved = config.resolve(PLAIN | {"saes": {"s": SAE | {"source": "x", "train": None}}})
    assert resolved["saes"]["s"]["train"] is None


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", ".hidden", "-x", ""])
def test_e7_an_experiment_is_a_folder_below_the_results(name):
    with pytest.raises(ConfigError, match="experiment"):
        config.resolve(PLAIN | {"experiment": name})


def test_c7_folders_are_expanded_like_other_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("DISK", "/disk")
    found = config.resolve(PLAIN | {"cache_dir": "~/cache", "results_dir": "$DISK/r/"})
    assert (found["cache_dir"], found["results_dir"]) == ("/home/ann/cache", "/disk/r")


@pytest.mark.parametrize("folder", ["a{b}", "{experiment}", "$NOT_SET/x", "${NOT_SET}", "a*", ""])
def test_c7_what_cannot_be_a_folder_is_refused(folder):
    for key in ("cache_dir", "results_dir"):
        with pytest.raises(ConfigError, match=f"{key}: "):
            config.resolve(PLAIN | {key: folder})


def test_h_numbers_that_yaml_reads_as_text_are_numbers():
    train = {"width": "64", "k": "4", "learning_rate": "1e-3"}
    found = config.resolve(
        PLAIN | {"saes": {"s": SAE | {"train": train}}, "threads": {"activations": "3"}}
    )
    got = found["saes"]["s"]["train"]
    assert (got["width"], got["k"], got["learning_rate"]) == (64, 4, 1e-3)
    assert found["threads"]["activations"] == 3
    with pytest.raises(ConfigError, match=r"threads\.activations: '3x' is not of type 'integer'"):
        config.resolve(PLAIN | {"threads": {"activations": "3x"}})
    text = config.resolve(PLAIN | {"datasets": [{"name": "a", "path": "a.csv", "text": "1e5"}]})
    assert text["datasets"][0]["text"] == "1e5"
