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
