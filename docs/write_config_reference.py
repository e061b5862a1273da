"""Write config/README.md and config/schema.json from the models of the config:
python docs/write_config_reference.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actprobe.config.schema import json_schema

FOLDER = Path(__file__).resolve().parents[1] / "config"
TARGET = FOLDER / "README.md"
SCHEMA = FOLDER / "schema.json"

HEAD = """# Configuration

The quickstart's `config.yaml` is what `snakemake` reads when no `--configfile` is given; other
examples are in `examples/`. A config is one YAML file. Unknown keys, wrong types and names that nothing
defines are refused before anything is computed; one message names every fault. `1e-3`, which YAML takes
for text, is a number wherever a number is expected.

`--config` sets keys from the command line, whatever the file says. Snakemake takes no dots in the name
of a key: set a nested key in a mapping, which is merged with what is there.

```
snakemake -n --config 'threads={activations: 1}' plan=all
actprobe plan --config threads.activations=1       # the command of this package takes both
```

Editors check a config while it is written where its first line says
`# yaml-language-server: $schema=PATH/TO/config/schema.json` (`schema.json` is beside this page).

This page and `schema.json` are written from the models in `src/actprobe/config` by
`docs/write_config_reference.py`; a test keeps them in step.
"""

Node = dict[str, Any]


def reference() -> str:
    """The page: one section per top-level key, nested keys indented below it."""
    top = json_schema()
    page = _Page(top["$defs"])
    general = {k: v for k, v in top["properties"].items() if not page.parts(v)}
    lines = [HEAD, "## General", ""]
    for key, node in general.items():
        lines += page.entry(key, node, key in top["required"], 0)
    for key, node in top["properties"].items():
        if key in general:
            continue
        lines += ["", f"## `{key}`", "", page.text(node), ""]
        lines += page.children(node, 0)
    return "\n".join(line.rstrip() for line in lines) + "\n"


class _Page:
    def __init__(self, models: dict[str, Node]) -> None:
        self._models = models

    def parts(self, node: Node) -> dict[str, tuple[Node, bool]]:
        """Keys that stand below a node: its own, those of its entries and alternatives."""
        found: dict[str, tuple[Node, bool]] = {}
        for option in self._options(node):
            required = option.get("required", ())
            found |= {k: (n, k in required) for k, n in option.get("properties", {}).items()}
            for below in (option.get("items"), option.get("additionalProperties")):
                if isinstance(below, dict) and not option.get("properties"):
                    found |= self.parts(below)
        return found

    def children(self, node: Node, depth: int) -> list[str]:
        return [x for k, (n, r) in self.parts(node).items() for x in self.entry(k, n, r, depth)]

    def entry(self, key: str, node: Node, required: bool, depth: int) -> list[str]:
        kinds = self._kinds(node)
        optional = not required and "default" not in node  # null is as if not given
        facts = [" or ".join(k for k in kinds if k != "null" or not optional)]
        if required:
            facts.append("required")
        elif "default" in node and not (node["default"] and isinstance(node["default"], dict)):
            facts.append(f"default `{json.dumps(node['default'], ensure_ascii=False)}`")
        line = f"{'  ' * depth}- **`{key}`** ({', '.join(facts)}): {self.text(node)}"
        return [line, *self.children(node, depth + 1)]

    def text(self, node: Node) -> str:
        """What the key says of itself, else what its model does."""
        said = (n.get("description", "") for n in (node, *self._options(node)))
        return " ".join(next(filter(None, said), "").split())

    def _options(self, node: Node) -> Iterator[Node]:
        """The alternatives of a node, with references put in."""
        if "$ref" in node:
            yield self._models[node["$ref"].rsplit("/", 1)[1]]
        elif "anyOf" in node or ("oneOf" in node and "properties" not in node):
            for option in node.get("anyOf") or node["oneOf"]:
                yield from self._options(option)
        else:
            yield node

    def _kinds(self, node: Node) -> list[str]:
        return list(dict.fromkeys(map(self._word, self._options(node))))

    def _word(self, option: Node) -> str:
        if "enum" in option or "const" in option:
            values = option.get("enum", [option.get("const")])
            return " | ".join(f"`{json.dumps(v)}`" for v in values)
        kind = option.get("type", "any")
        words = {"object": "mapping", "array": "list"}
        return " or ".join(words.get(k, k) for k in ([kind] if isinstance(kind, str) else kind))


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    SCHEMA.write_text(
        json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
