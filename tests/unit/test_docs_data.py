"""The examples of docs/data.md are run, and give the rows that stand there."""

# ruff: noqa: F401, F811

from __future__ import annotations

import re

import pytest
import yaml
from answers_tiny import save_speaker
from hub_server import loopback
from test_texts_hub import FILES, REPO
from texts_inputs import configured

from actprobe import texts
from actprobe.cache import plan
from actprobe.experiment import targets as experiment
from actprobe.texts.chats import Chat

_BLOCK = re.compile(r"^```(\w+) ?([\w.]*)\n(.*?)^```$", re.S | re.M)


def parts(root):
    """Heading -> (kind, file, content) of its blocks."""
    text = (root / "docs" / "data.md").read_text()
    found = {}
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        heading = part.partition("\n")[0]
        if blocks := [m.groups() for m in _BLOCK.finditer(part)]:
            found[heading] = blocks
    return found


def shown(found):
    """The rows as the document writes them."""
    rows = []
    for i, text in enumerate(found.text):
        if found.spans is not None:
            names = found.facts["spans"]["classes"]
            for s in reversed(found.spans[i]):
                text = (
                    f"{text[: s.start]}[{names[s.label]}: {text[s.start : s.end]}]{text[s.end :]}"
                )
        if found.parts is not None:
            low, high = found.parts[i]
            text = f"{text[:low]}[{text[low:high]}]{text[high:]}"
        label = "-" if found.label is None else found.classes[found.label[i]]
        label = label if found.value is None else f"{found.value[i]:g}"
        rows.append(f"{label} | {text}".replace("\n", "⏎"))
    return rows


def test_every_example_gives_its_rows(root, tmp_path, loopback, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commit = loopback.add(REPO, FILES)
    save_speaker(tmp_path / "chatty")
    models = {"chatty": {"source": str(tmp_path / "chatty"), "device": "cpu"}}
    tried = 0
    for heading, blocks in parts(root).items():
        for _, file, content in blocks:
            if file:
                (tmp_path / file).write_text(content)
        entries = [yaml.safe_load(c) for kind, _, c in blocks if kind == "yaml"]
        rows = [c.splitlines() for kind, _, c in blocks if kind == "rows"]
        for entry in entries:
            if not isinstance(entry, list):  # of `activations`
                configured(tmp_path, models=models, **entry)
                continue
            entry[0]["path"] = entry[0]["path"].replace("COMMIT", commit)
            found = made(configured(tmp_path, *entry, models=models))
            tried += 1
            if rows:
                assert shown(found) == rows[0], heading
            assert len(found) > 0
    assert tried == 15


def made(resolved):
    """The texts of a config of one dataset, made."""
    first = experiment.plan_texts(resolved)
    for batch in first.in_order():
        experiment.run(batch, resolved, 1)
    for batch in (planned := experiment.plan(resolved, ("texts",))).in_order():
        experiment.run(batch, resolved, 1)
    [path] = planned.paths("texts")
    found = texts.load(path)
    assert found.chats is None or isinstance(found.chats[0], Chat)
    return found
