"""Top contexts as a page that opens offline."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import markupsafe
import pyarrow as pa

from actprobe.base import pages
from actprobe.base.errors import BadInput
from actprobe.cache import store

_DARKEST = 0.6  # opacity behind the strongest token: the text stays readable
_SPACES = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "⏎", "\n": "⏎"})


def write_page(path: str | Path, page: str | Path) -> None:
    """Write the page of a table of top contexts; a tombstone's page says its reason."""
    facts: dict[str, Any] = store.read_header(path)["facts"]
    try:
        html = render(store.read_table(path), **facts)
    except BadInput as e:
        html = f"<!doctype html><meta charset=utf-8><p>{markupsafe.escape(str(e))}</p>\n"
    page = Path(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    part = page.with_name(f".{page.name}.part")
    part.write_text(html, encoding="utf-8")
    os.replace(part, page)


def render(table: pa.Table, source: str, dataset: str, n_latents: int) -> str:
    """The page of a table (`table.SCHEMA`)."""
    return pages.template("actprobe.contexts", "contexts.html.j2").render(
        source=source, dataset=dataset, n_latents=n_latents, latents=_latents(table.to_pylist())
    )


def _latents(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for r in rows:
        first = {
            "latent": r["latent"],
            "frequency": f"{r['frequency']:.3%}",
            "total": f"{r['total']:.4g}",
            "largest": r["value"],
            "contexts": [],
        }
        latent = found.setdefault(r["latent"], first)
        latent["contexts"].append(
            {
                "example": r["example"],
                "position": r["position"],
                "value": f"{r['value']:.3g}",
                "tokens": [
                    {
                        "text": text.translate(_SPACES),
                        "peak": i == r["peak"],
                        "value": f"{value:.3g}",
                        "share": round(_DARKEST * max(value, 0.0) / latent["largest"], 2),
                    }
                    for i, (text, value) in enumerate(zip(r["tokens"], r["values"], strict=True))
                ],
            }
        )
    return list(found.values())
