"""Documents that are written from the code are in step with it."""

from __future__ import annotations

import importlib.util
import re

import yaml
from importlinter.application import use_cases
from importlinter.configuration import configure

from actprobe import config

configure()


def written_by(root, name):
    spec = importlib.util.spec_from_file_location("w", root / "docs" / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_config_reference_is_written_from_the_schemas(root):
    module = written_by(root, "write_config_reference.py")
    assert module.TARGET.read_text(encoding="utf-8") == module.reference(), (
        "run: python docs/write_config_reference.py"
    )


def test_protocols_are_written_from_their_files(root):
    module = written_by(root, "write_protocols.py")
    assert module.TARGET.read_text(encoding="utf-8") == module.page(), (
        "run: python docs/write_protocols.py"
    )


def test_the_rooms_are_drawn_from_the_imports(root):
    module = written_by(root, "write_rooms.py")
    assert module.TARGET.read_text(encoding="utf-8") == module.page(), (
        "run: python docs/write_rooms.py"
    )


def test_imports_go_downward_only(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert use_cases.lint_imports(verbose=False) is True, capsys.readouterr().out


def test_the_config_in_the_readme_is_valid(root):
    block = re.search(r"```yaml\n(.*?)```", (root / "README.md").read_text(), re.S)
    assert block
    resolved = config.resolve(yaml.safe_load(block[1]))
    assert resolved["models"]["qwen"]["source"].startswith("hub:")


def test_links_in_the_documents_lead_somewhere(root):
    for page in [root / "README.md", *(root / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
