"""Write the picture of rooms and imports in docs/design.md, from the imports:
python docs/write_rooms.py

Needs grimp, which comes with import-linter. Imports for type checkers alone are left out.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "design.md"
PICTURE = re.compile(r"(?<=<!-- rooms -->\n).*?(?=<!-- /rooms -->)", re.S)


def contract() -> tuple[list[list[str]], set[tuple[str, str]]]:
    """Rooms from above to below, those of equal height together; and the excused imports."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    rooms = tool["contracts"][0]
    excused = {tuple(line.split(" -> ")) for line in rooms["ignore_imports"]}
    return [re.split(r" [|:] ", layer) for layer in rooms["layers"]], excused


def arrows() -> list[tuple[str, str]]:
    """Who imports whom, without the arrows that a longer way through other rooms tells too."""
    layers, excused = contract()
    rooms = [room for layer in layers for room in layer]
    graph = grimp.build_graph("actprobe", exclude_type_checking_imports=True)
    for importer, imported in excused:
        graph.remove_import(importer=importer, imported=imported)
    for room in rooms:
        if graph.find_children(f"actprobe.{room}"):
            graph.squash_module(f"actprobe.{room}")
    below = {
        room: {
            name.split(".")[1]
            for name in graph.find_modules_directly_imported_by(f"actprobe.{room}")
            if name not in ("actprobe", f"actprobe.{room}")
        }
        for room in rooms
    }
    reached: dict[str, set[str]] = {}
    for room in reversed(rooms):
        reached[room] = below[room].union(*(reached.get(b, set()) for b in below[room]))
    return [
        (room, b)
        for room in rooms
        for b in sorted(below[room])
        if not any(b in reached[other] for other in below[room] - {b})
    ]


def picture() -> str:
    """A diagram in Mermaid, which GitHub and most viewers of Markdown draw."""
    lines = [f"    {a} --> {b}" for a, b in arrows()]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```", ""])


def page() -> str:
    """The whole of docs/design.md with the picture of today."""
    return PICTURE.sub(lambda _: picture(), TARGET.read_text(encoding="utf-8"))


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
