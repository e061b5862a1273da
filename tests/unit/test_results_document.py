"""docs/tables.md explains every column of the results table."""

from __future__ import annotations

import importlib.util

from actprobe.probes import columns


def test_the_page_about_the_table_is_written_from_schema_and_metrics(root):
    spec = importlib.util.spec_from_file_location("t", root / "docs" / "write_tables.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.TARGET.read_text(encoding="utf-8")
    assert page == module.page(), "run: python docs/write_tables.py"
    assert all(f"| `{column}` |" in page for column in columns.types())
