"""What `--config` sets on the command line, by a real snakemake and by `actprobe`."""

from __future__ import annotations

import json
import re

import yaml


def activations(text: str) -> set[str]:
    """Names of the files of activations, which hold their keys, in what a command said."""
    return set(re.findall(r"cache/activations/[^\s,\"]+", text))


def planned(project, *settings: str) -> set[str]:
    said = project.actprobe("plan", "--json", "--configfile", "config.yaml", *settings)
    return activations(json.dumps([*json.loads(said)["pending"]]))


def test_nested_keys_are_set_and_keep_their_kinds(empty):
    """`false` in a mapping reaches the Snakefile as text; the other keys of the model stay."""
    before = activations(empty.snakemake("-n"))
    model = "models={tiny: {exclude_first: false}}"
    after = activations(empty.snakemake("-n", "--config", model, "threads={activations: 1}"))
    assert len(before) == len(after) == 4 and not before & after
    assert planned(empty) == before
    assert planned(empty, "--config", "models.tiny.exclude_first=false", "plan=all") == after
    empty.config["models"]["tiny"]["exclude_first"] = False
    assert activations(empty.snakemake("-n")) == after


def test_threads_of_one_stage(empty):
    """The mapping form leaves the other stages' threads alone."""

    def threads(said: str) -> dict[str, str]:
        jobs = re.findall(r"^(?:local)?rule (\w+?)(?:_\w+)?:\n(.*?)\n\n", said, re.M | re.S)
        return {name: (re.findall(r"threads: (\d+)", text) or ["1"])[0] for name, text in jobs}

    before = threads(empty.snakemake("-n"))
    after = threads(empty.snakemake("-n", "--config", "threads={activations: 1}"))
    changed = {k for k in before if before[k] != after[k]}
    assert (len(changed), {after[k] for k in changed}) == (1, {"1"})
    assert changed.pop().startswith("activations")


def test_what_is_wrong_is_said_with_its_place(empty):
    said = empty.snakemake("-n", "--config", "threads={activations: 0, probs: 2}", ok=False)
    assert "threads: unknown key 'probs'; did you mean 'probes'?" in said
    assert "threads.activations: 0: expected at least 1" in said
    (empty.folder / "config.yaml").write_text(yaml.safe_dump(empty.config))
    settings = ("--config", "datasets.0.name=x", "--configfile", "config.yaml")
    said = empty.actprobe("plan", *settings, ok=False)
    assert "datasets is a list, which only a new list replaces" in said
