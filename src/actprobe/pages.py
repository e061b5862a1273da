"""What the rooms' HTML pages share: templates, and figures with their captions."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

from actprobe.config import SCHEMAS

CAPTIONS = SCHEMAS.parent / "report"  # those of Snakemake's own report


def template(package: str, name: str) -> jinja2.Template:
    """A template that lies in a package: values are escaped, and a name it does not get is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def figure(svg: Path) -> dict[str, str]:
    """An SVG file as a `uri` that needs no file beside the page, and its `caption`."""
    caption = " ".join((CAPTIONS / f"{svg.stem}.rst").read_text(encoding="utf-8").split())
    data = base64.b64encode(svg.read_bytes()).decode()
    return {"uri": f"data:image/svg+xml;base64,{data}", "caption": caption}
