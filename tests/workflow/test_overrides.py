"""What `--config` sets on the command line, by a real snakemake and by `actprobe`."""

from __future__ import annotations

import json
import re

import yaml

DRY = ("-n", "--quiet", "progress")  # with the outputs of jobs


def activations(text: str) -> set[str]:
    """Names of the files of activations, which hold their keys, in what a command said."""
    return set(re.findall(r"cache/activations/\S+?\.h5", text))


def planned(project, *settings: str) -> set[str]:
    said = project.actprobe("plan", "--json", "--configfile", "config.yaml", *settings)
    return activations(json.dumps([*json.loads(said)["pending"]]))


def test_nested_keys_are_set_and_keep_their_kinds(empty):
    """`false` in a mapping reaches the Snakefile as text; the other keys of the model stay."""
    before = activations(empty.snakemake(*DRY))
    model = "models={tiny: {exclude_first: false}}"
    after = activations(empty.snakemake(*DRY, "--config", model, "threads={activations: 1}"))
    assert len(before) == len(after) == 4 and not before & after, (before, after)
    assert planned(empty) == before
    assert planned(empty, "--config", "models.tiny.exclude_first=false", "plan=all") == after
    empty.config["models"]["tiny"]["exclude_first"] = False
    assert activations(empty.snakemake(*DRY)) == after


def test_threads_of_one_stage(empty):
    """The mapping leaves the other stages' threads alone; Snakemake says them where they are not 1."""

    def threads(said: str, rule: str) -> list[str]:
        job = said.split(f"rule {rule}")[1].split("resources:")[0]
        return re.findall(r"threads: (\d+)", job)

    before = empty.snakemake(*DRY)
    after = empty.snakemake(*DRY, "--config", "threads={activations: 1}")
    assert [threads(said, "activations_tiny:") for said in (before, after)] == [["2"], []]
    assert [threads(said, "probes_") for said in (before, after)] == [["2"], ["2"]]


def test_what_is_wrong_is_said_with_its_place(empty):
    said = empty.snakemake(*DRY, "--config", "threads={activations: 0, probs: 2}", ok=False)
    assert "threads: unknown key 'probs'; did you mean 'probes'?" in said
    assert "threads.activations: 0: expected at least 1" in said
    (empty.folder / "config.yaml").write_text(yaml.safe_dump(empty.config))
    settings = ("--config", "datasets.0.name=x", "--configfile", "config.yaml")
    said = empty.actprobe("plan", *settings, ok=False)
    assert "datasets is a list, which only a new list replaces" in said
