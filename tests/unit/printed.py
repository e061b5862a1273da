"""The tables and links that an HTML page shows."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tables of a page: rows of (text, whether the cell is a label); links; what else opens tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[str, bool]]]] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self._cell: list[str] | None = None
        self._label = False
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag == "td" or (tag == "th" and found.get("scope") != "col"):
            self._cell, self._label = [], "label" in (found.get("class") or "")
        elif tag == "a":
            self.links.append(found["href"])

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append(("".join(self._cell), self._label))
            self._cell = None

    def alike(self) -> list[tuple[str, ...]]:
        """Labels that two rows of one table share; rows without a label count as well."""
        found = []
        for table in self.tables:
            labels = [tuple(text for text, is_label in row if is_label) for row in table if row]
            found += [row for row in labels if labels.count(row) > 1 or not row]
        return found
