"""The examples in docs/python.md and the notebook, run on a small experiment."""

from __future__ import annotations

import re

import face_made
import pytest

# What the quickstart calls things, and what the small experiment does.
NAMES = {
    "config/config.yaml": "config.yaml",
    "95_toxic_is": "a",
    "smollm2/resid_post.15": "tiny/resid_post.1",
    "actprobe-1": "quick",
}


@pytest.fixture
def there(tmp_path, monkeypatch):
    """The folder of the experiment, and one to write to."""
    folder = face_made.once().parent
    monkeypatch.chdir(tmp_path)
    for name in ("cache", "results", "config.yaml", "quick.yaml", "paper.yaml"):
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path


def translated(text):
    for name, own in NAMES.items():
        text = text.replace(name, own)
    return text


def test_the_examples_of_the_page_run(root, there):
    page = (root / "docs" / "python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(translated(block), "docs/python.md", "exec"), names)
    probe, again = names["probe"], names["again"]
    rows = ["You are a fool."]
    assert again.score_texts(rows) == probe.score_texts(rows)
    assert len(names["watch"].table()) > 10


def test_the_notebook_runs_to_its_end(root, there):
    text = (root / "docs" / "notebook.py").read_text()
    names: dict[str, object] = {}
    exec(compile(translated(text), "docs/notebook.py", "exec"), names)
    assert len(names["best"]) and len(names["wrong"]) and names["agreement"].shape == (3, 3)
    assert (names["wrong"]["label"] != names["wrong"]["prediction"]).all()


def test_the_notebook_is_in_the_percent_form(root):
    cells = re.split(r"^# %%.*$", (root / "docs" / "notebook.py").read_text(), flags=re.M)
    assert len(cells) > 10 and all(c.strip() for c in cells)
