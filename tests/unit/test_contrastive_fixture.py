"""The fixture: what its data are balanced in, and that it can be made again."""

from __future__ import annotations

import json
from collections import Counter

from actprobe.models import fixture


def test_letters_cancel_and_yes_is_always_positive():
    for rows in (fixture.letters(), fixture.yes_no()):
        assert Counter(r["positive"] for r in rows) == {
            "(A)": len(rows) // 2,
            "(B)": len(rows) // 2,
        }
        for r in rows:
            assert f"{r['positive']} Yes" in r["question"]
            assert f"{r['negative']} No" in r["question"]
        stems = Counter(r["question"].partition("\n")[0] for r in rows)
        assert set(stems.values()) == {2}  # each in both letter orders


def test_statements_and_validation_share_no_sentence():
    statements, validation = fixture.statements(), fixture.validation()
    assert len(statements) == 60 and Counter(r["type"] for r in validation) == {
        "testing": 100, "deployment": 100,
    }  # fmt: skip
    answers = {r[k] for r in statements for k in ("positive", "negative")}
    assert len(answers) == 120 and not answers & {r["question"] for r in validation}


def test_files_repeat_to_the_byte(tmp_path):
    for name in "ab":
        fixture.write_data(tmp_path / name)
        fixture.write_model(tmp_path / name / "model", n_layers=2, d_model=8)
    for one in sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        other = tmp_path / "b" / one.relative_to(tmp_path / "a")
        assert one.read_bytes() == other.read_bytes(), one.name
    assert len(json.loads((tmp_path / "a" / "letters.json").read_text())) == 200
