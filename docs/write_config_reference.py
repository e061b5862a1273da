"""Write config/README.md from the schemas: python docs/write_config_reference.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actprobe import config

TARGET = Path(__file__).resolve().parents[1] / "config" / "README.md"

HEAD = """# Configuration

The quickstart's `config.yaml` is what `snakemake` reads when no `--configfile` is given; other
examples are in `examples/`. A config is one YAML file; `snakemake --config key=value` overrides a
top-level key. Unknown keys, wrong types and names that nothing defines are refused before anything
is computed.

This page is written from `workflow/schemas/*.schema.yaml` by `docs/write_config_reference.py`; a
test keeps it in step.
"""


def reference() -> str:
    """The page: one section per top-level key, nested keys indented below it."""
    top = config.schema()
    general = {k: v for k, v in top["properties"].items() if not _has_parts(v)}
    lines = [HEAD, "## General", ""]
    for key, node in general.items():
        lines += _entry(key, node, key in top["required"], 0)
    for key, node in top["properties"].items():
        if key in general:
            continue
        lines += ["", f"## `{key}`", "", _text(node), ""]
        lines += _children(node, 0)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _has_parts(node: dict[str, Any]) -> bool:
    return any(True for _ in _parts(node))


def _parts(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Keys that stand below a node: its properties, those of its list items or named entries."""
    for sub in (node, node.get("items"), node.get("additionalProperties")):
        if isinstance(sub, dict):
            required = sub.get("required", ())
            for key, child in sub.get("properties", {}).items():
                yield key, child, key in required
            if sub is not node:
                yield from () if sub.get("properties") else _parts(sub)


def _children(node: dict[str, Any], depth: int) -> list[str]:
    parts = {k: (n, r) for k, n, r in _parts(node)}  # a mapping or a list of such: said once
    return [line for k, (n, r) in parts.items() for line in _entry(k, n, r, depth)]


def _entry(key: str, node: dict[str, Any], required: bool, depth: int) -> list[str]:
    facts = [_kind(node)]
    if required:
        facts.append("required")
    elif "default" in node:
        facts.append(f"default `{json.dumps(node['default'], ensure_ascii=False)}`")
    line = f"{'  ' * depth}- **`{key}`** ({', '.join(facts)}): {_text(node)}"
    return [line, *_children(node, depth + 1)]


def _kind(node: dict[str, Any]) -> str:
    if "enum" in node:
        return " | ".join(f"`{json.dumps(v)}`" for v in node["enum"])
    kind = node.get("type")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind:
        return {"object": "mapping", "array": "list"}.get(kind, kind)
    options = node.get("oneOf") or node.get("anyOf") or ()
    return " or ".join(dict.fromkeys(_kind(o) for o in options)) or "any"


def _text(node: dict[str, Any]) -> str:
    return " ".join(str(node.get("description", "")).split())


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
