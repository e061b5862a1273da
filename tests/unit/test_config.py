"""What a config is read as, and what one that is wrong is told."""

import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from actprobe import config
from actprobe.base.errors import ConfigError
from actprobe.config.schema import json_schema

PLAIN = {"experiment": "e", "datasets": [{"name": "a", "path": "a.csv"}]}
SAE = {"model": "m", "site": "resid_post.1"}
SPAN = {"model": "m", "sites": ["embed"], "positions": ["span.a"]}
DUMP = {"lock": "l", "source": {"run": "a/b/c"}}


def told(part):
    """The lines that a config with this part is refused with."""
    with pytest.raises(ConfigError) as e:
        config.resolve(PLAIN | part)
    first, *lines = str(e.value).splitlines()
    assert first == "config:"
    return [line.removeprefix("  ") for line in lines]


def dataset(**changes):
    return {"datasets": [{"name": "a", "path": "a.csv"} | changes]}


def model(**changes):
    return {"models": {"m": {"source": "hub:a/b"} | changes}}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"datasets": [{"path": "x"}]}, "datasets.0: 'name' and 'names' missing: give one of them"),
        (dataset(names=["b"]), "datasets.0: 'name' and 'names' exclude each other"),
        ({"datasets": ["x"]}, "datasets.0: 'x': expected a mapping"),
        ({"datasets": {"a": {}}}, "datasets: {'a': {}}: expected a list"),
        ({"saes": {"s": SAE}}, "saes.s: 'source' and 'train' missing: give one of them"),
        (
            {"saes": {"s": SAE | {"train": None}}},
            "saes.s: 'source' and 'train' missing: give one of them",
        ),
        ({"saes": {"s": SAE | {"train": {"width": 4}}}}, "saes.s.train: 'k' is missing"),
        (
            {"saes": {"s": SAE | {"source": "x", "train": {"width": 4, "k": 2}}}},
            "saes.s: 'source' and 'train' exclude each other",
        ),
        (
            {"dumps": {"d": DUMP | {"source": {"artifacts": ["a/b/c:v0"], "run": "a/b/c"}}}},
            "dumps.d.source: 'artifacts' and 'run' exclude each other",
        ),
        (
            {"dumps": {"d": DUMP | {"source": {"type": "x"}}}},
            "dumps.d.source: 'run' is missing, which 'type' needs",
        ),
        (
            {"dumps": {"d": DUMP | {"source": {"run": "a/b"}}}},
            "dumps.d.source.run: 'a/b': expected entity/project/run_id",
        ),
        (
            {"activations": [SPAN | {"spans": {"a": {"chars": ["x", 1]}}}]},
            "activations.0.spans.a.chars.0: 'x': expected a whole number",
        ),
        (
            {"activations": [SPAN | {"spans": {"a": {"marker": "x", "turn": 1}}}]},
            "activations.0.spans.a: 'marker' and 'turn' exclude each other",
        ),
        (
            {"on_bad_dataset": "sktip"},
            "on_bad_dataset: 'sktip': expected 'stop' or 'skip'; did you mean 'skip'?",
        ),
        (dataset(txt="x"), "datasets.0: unknown key 'txt'; did you mean 'text'?"),
        (dataset(label=3), "datasets.0.label: 3: expected text"),
        (
            dataset(separator=";;"),
            "datasets.0.separator: ';;': expected one character, no double quote and no line break",
        ),
        (
            dataset(keep={"c": [1, {}]}),
            "datasets.0.keep.c.1: {}: expected text, a whole number, a number or true or false",
        ),
        (
            dataset(messages=[{"role": "user"}]),
            "datasets.0.messages.0: 'content' is missing, which 'role' needs",
        ),
        # What is wrong with one alternative is said of that one.
        (
            model(adapter={"source": "a", "scael": 2}),
            "models.m.adapter: unknown key 'scael'; did you mean 'scale'?",
        ),
        (
            model(adapter=[{"source": "a", "scale": "x"}]),
            "models.m.adapter.0.scale: 'x': expected a number",
        ),
        (
            model(adapter="none"),
            "models.m.adapter: 'none': expected 'ignore'; did you mean 'ignore'?",
        ),
        (model(adapter=5), "models.m.adapter: 5: expected a mapping, a list or text"),
        (model(source=["a"]), "models.m.source: ['a']: expected 2 or more entries"),
        (model(exclude_first="true"), "models.m.exclude_first: 'true': expected true or false"),
        (model(n_layers=True), "models.m.n_layers: true: expected a whole number"),
        (model(n_layers=2.5), "models.m.n_layers: 2.5: expected a whole number"),
        (model(quantization={"bits": 16}), "models.m.quantization.bits: 16: expected 4 or 8"),
        (
            {"models": {".m": {"source": "x"}}},
            "models..m: '.m': expected a name of letters, digits, `.`, `_` and `-`, and `@REVISION` "
            "for one checkpoint",
        ),
        ({"results": {"confidence": 1}}, "results.confidence: 1: expected less than 1.0"),
        (
            {"max_memory": "3 elephants"},
            "max_memory: '3 elephants': expected a size: bytes, or e.g. 3GB, 512MiB",
        ),
        (
            {"probes": [{"protocol": "p", "methods": ["a", "a"]}]},
            "probes.0.methods: ['a', 'a']: 'a' is there twice; expected each once",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(part, said):
    assert told(part) == [said]


def test_one_message_names_every_fault():
    part = {
        "experimnt": "x",
        "threads": {"activations": 0},
        "datasets": [{"path": 3, "txt": "t"}, {"name": "b", "names": ["c"]}],
        "cache_dir": "a*",
    }
    found = told(part)
    assert [line.split(": ")[0] for line in found] == [
        "(top level)",
        "cache_dir",
        *["datasets.0"] * 2,
        "datasets.0.path",
        *["datasets.1"] * 2,
        "threads.activations",
    ]
    assert {line.split(": ", 1)[1] for line in found if line.startswith("datasets.1")} == {
        "'path' is missing",
        "'name' and 'names' exclude each other",
    }


def test_null_is_as_if_not_given():
    resolved = config.resolve(PLAIN | {"saes": {"s": SAE | {"source": "x", "train": None}}})
    assert resolved.saes["s"].train is None
    [entry] = config.resolve(dataset(names=None) | {"experiment": "e"}).datasets
    assert entry.names is None and "names" not in entry


def test_a_config_cannot_be_changed_and_is_read_again_as_it_is():
    spans = {"a": {"chars": [0, None]}, "b": {"turn": -1}}
    part = model(revision=["step1", 2]) | {"activations": [SPAN | {"spans": spans}]}
    resolved = config.resolve(PLAIN | part | {"max_memory": "3GB"})
    assert sorted(resolved.models) == ["m@2", "m@step1"]
    with pytest.raises(ValueError, match="frozen"):
        resolved.plan = "all"
    again = json.loads(json.dumps(config.plain(resolved)))
    assert config.resolve(again) == resolved
    assert again["max_memory"] == 3 * 10**9
    assert again["activations"][0]["spans"]["b"] == {
        "occurrence": "last",
        "turn": -1,
        "reduce": "mean",
    }


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", ".hidden", "-x", ""])
def test_e7_an_experiment_is_a_folder_below_the_results(name):
    with pytest.raises(ConfigError, match="experiment"):
        config.resolve(PLAIN | {"experiment": name})


def test_c7_folders_are_expanded_like_other_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("DISK", "/disk")
    found = config.resolve(PLAIN | {"cache_dir": "~/cache", "results_dir": "$DISK/r/"})
    assert (found.cache_dir, found.results_dir) == ("/home/ann/cache", "/disk/r")


@pytest.mark.parametrize("folder", ["a{b}", "{experiment}", "$NOT_SET/x", "${NOT_SET}", "a*", ""])
def test_c7_what_cannot_be_a_folder_is_refused(folder):
    for key in ("cache_dir", "results_dir"):
        with pytest.raises(ConfigError, match=f"{key}: .*expected a folder"):
            config.resolve(PLAIN | {key: folder})


def test_h_numbers_that_yaml_reads_as_text_are_numbers():
    train = {"width": "64", "k": "4", "learning_rate": "1e-3"}
    found = config.resolve(
        PLAIN | {"saes": {"s": SAE | {"train": train}}, "threads": {"activations": "3"}}
    )
    got = found.saes["s"].train
    assert (got.width, got.k, got.learning_rate) == (64, 4, 1e-3)
    assert found.threads.activations == 3
    assert told({"threads": {"activations": "3x"}}) == [
        "threads.activations: '3x': expected a whole number"
    ]
    text = config.resolve(PLAIN | dataset(text="1e5", positive="1e5", keep={"c": "2"}))
    [entry] = text.datasets
    assert (entry.text, entry.positive, entry.keep) == ("1e5", "1e5", {"c": "2"})


@pytest.mark.parametrize(
    ("setting", "section", "found"),
    [
        ("threads.activations=1", "threads", {"activations": 1, "saes": 2}),
        ("threads={activations: 1}", "threads", {"activations": 1, "saes": 2}),
        ("wandb.enabled=true", "wandb", {"enabled": True}),
        ("saes.gemma-2.5.train.k=9", "saes", {"gemma-2.5": {"train": {"width": 4, "k": 9}}}),
        ("results=", "results", None),
        ("datasets=[]", "datasets", []),
    ],
)
def test_a_command_sets_nested_keys(setting, section, found):
    raw = {
        "threads": {"saes": 2},
        "saes": {"gemma-2.5": {"train": {"width": 4, "k": 2}}},
        "datasets": [{}],
        "results": {"confidence": 0.9},
    }
    before = json.dumps(raw)
    assert config.overridden(raw, [setting])[section] == found
    assert json.dumps(raw) == before, "what it was read from stays"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("datasets.0.name=a", "datasets is a list, which only a new list replaces"),
        ("experiment.x=1", "experiment is no mapping"),
        ("threads", "expected KEY=VALUE"),
        ("threads={a", "the value is not valid YAML"),
    ],
)
def test_what_a_command_cannot_set_is_refused(setting, said):
    with pytest.raises(ConfigError, match=said):
        config.overridden(PLAIN, [setting])


def test_the_schema_for_editors_is_valid_and_describes_every_key():
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    models = {"Config": schema, **schema["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, node in models.items()
        for key, part in node.get("properties", {}).items()
        if not part.get("description") and "$ref" not in json.dumps(part)
    ]
    assert not silent
    assert all(node["description"] for node in models.values())


def test_examples_name_the_schema_and_obey_it(root):
    folder = root / "config"
    published = json.loads((folder / "schema.json").read_text())
    assert published == json_schema(), "run: python docs/write_config_reference.py"
    validator = Draft202012Validator(published)
    examples = [folder / "config.yaml", *(folder / "examples").glob("*.yaml")]
    assert len(examples) > 5
    for example in examples:
        first, rest = example.read_text().split("\n", 1)
        place = first.removeprefix("# yaml-language-server: $schema=")
        assert (example.parent / place).resolve() == folder / "schema.json"
        assert not list(validator.iter_errors(yaml.safe_load(rest))), example.name


@pytest.mark.parametrize(
    ("part", "valid"),
    [
        ({}, True),
        (dataset(txt="x"), False),
        (dataset(names=["b"]), False),
        (dataset(spans={"column": "c", "in": "text"}), True),
        (dataset(spans={"column": "c", "in_": "text"}), False),
        (model(adapter="ignore", prepend_bos=True, revision=["a", 1]), True),
        (model(adapter="none"), False),
        ({"models": {"a b": {"source": "x"}}}, False),
        ({"saes": {"s": SAE | {"source": "x", "train": None}}}, True),
        ({"saes": {"s": SAE | {"train": None}}}, False),
        ({"max_memory": 5}, True),
        ({"dumps": {"d": DUMP | {"source": {"type": "x"}}}}, False),
        ({"activations": [SPAN | {"spans": {"a": {"turn": 1, "role": "user"}}}]}, True),
        ({"activations": [SPAN | {"spans": {"a": {"turn": 1, "marker": "x"}}}]}, False),
        ({"probes": [{"protocol": "p", "columns": ["each"]}]}, False),
        (dataset(generate={"model": "m", "max_new_tokens": 5, "label": {}}), False),
    ],
)
def test_editors_and_the_models_agree(part, valid):
    assert Draft202012Validator(json_schema()).is_valid(PLAIN | part) is valid
    if valid:
        config.resolve(PLAIN | part)
    else:
        told(part)
