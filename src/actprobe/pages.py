"""What the rooms' HTML pages share: templates, tables, and figures with their captions."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

CAPTIONS = (
    Path(__file__).resolve().parents[2] / "workflow" / "report"
)  # those of Snakemake's own report


@dataclass(frozen=True)
class Table:
    """A printed table. The first `labels` columns are text and tell the rows apart.

    rows: cells of each, a text or a mapping with `text` and perhaps `small` (a line below) and `css`.
    title, note: what stands above it. wrap: columns of long text. of: rows there are, where not all
    are shown. sortable: by a click on a heading.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    labels: int
    title: str = ""
    note: str = ""
    wrap: Sequence[str] = ()
    of: int = 0
    sortable: bool = True


# Control characters, marks that turn the direction of what follows, and what is no character.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def shown(value: Any) -> Any:
    """A value as a page shows it: what cannot be seen in a text becomes a sign for it."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub("\ufffd", value)
    return value


def template(package: str, name: str) -> jinja2.Template:
    """A template that lies in a package, or here: values are escaped, and a name it does not get is an
    error."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package, "."), jinja2.PackageLoader("actprobe", ".")]
        ),
        autoescape=True,
        finalize=shown,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def figure(svg: Path, **words: str) -> dict[str, str]:
    """An SVG file as a `uri` that needs no file beside the page, and its `caption` with these words.

    Captions are templates, as Snakemake's report reads them too.
    """
    written = (CAPTIONS / f"{svg.stem}.rst").read_text(encoding="utf-8")
    caption = " ".join(jinja2.Template(written).render(words).split())
    caption = caption[:1].upper() + caption[1:]
    data = base64.b64encode(svg.read_bytes()).decode()
    return {"uri": f"data:image/svg+xml;base64,{data}", "caption": caption}
