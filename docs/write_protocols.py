"""Write docs/protocols.md from the protocols: python docs/write_protocols.py"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from actprobe.probes import methods, metrics, protocol

TARGET = Path(__file__).resolve().parent / "protocols.md"

HEAD = """# Protocols

A protocol is a recipe, kept as data: which rows train and test, how hyperparameters are chosen, which
methods run in which settings. Its name is in every result, and its content in every key: a changed
protocol makes what it decided outdated, and nothing else. They are YAML files in
`src/actprobe/probes/protocols`, checked by `src/actprobe/probes/grammar.py`. One of your own
says `extends: actprobe-1` and what differs; `probes: [{protocol: mine.yaml}]` uses it.

This page is written from the protocols by `docs/write_protocols.py`; a test keeps it in step.
"""


def page() -> str:
    """One section per protocol, then the families of methods and the metrics."""
    lines = [HEAD]
    for name in protocol.names():
        lines += _protocol(protocol.load(name))
    lines += [
        "## Families of methods",
        "",
        "What `family` of a method can be, and the labels it is for.",
        "",
    ]
    lines += _table(
        ("family", "labels"), ((n, ", ".join(k)) for n, k in sorted(methods.families().items()))
    )
    lines += ["## Metrics", "", "Each is a column `test_…` of the table of results.", ""]
    lines += _table(
        ("metric", "is", "labels", "range", "better"),
        (
            (m.name + (" (main)" if m.name in metrics.MAIN.values() else ""), m.label,
             ", ".join(m.kinds), f"{m.low:g} to {m.high:g}", "more" if m.higher else "less")
            for m in metrics.all_metrics().values()
        ),
    )  # fmt: skip
    lines += [
        "The main metric of a label kind chooses hyperparameters on validation rows and is",
        "`test_score`, which comparisons compare.",
    ]
    return "\n".join(lines) + "\n"


def _protocol(p: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## `{p['name']}`", "", p["description"].strip(), "")
    yield from _table(("", ""), _facts(p))
    yield from ("Settings:", "")
    yield from _table(("setting", "varies", "values", "also"), map(_setting, p["settings"].items()))
    yield from ("Methods:", "")
    yield from _table(
        ("method", "family", "reads", "labels", "columns", "hyperparameters", "by default"),
        map(_method, p["methods"].items()),
    )


def _facts(p: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    split, rule, rows = p["split"], p["validation"], p["rows"]
    yield "seeds", ", ".join(map(str, p["seeds"]))
    if rows == "all":
        yield "rows of a collection", "all"
    else:
        kept = "drawn by the seed" if rows["kept"] == "drawn" else "the first ones"
        yield "rows of a dataset", f"at most {rows['most']:,}, {kept}"
    if "kind" in split:
        yield from _shares(split)
    elif split["groups"] == "ignore":
        yield "split", "rows one by one, as many of each class as the setting's ratio says"
        yield "train rows", f"at most {split['n_train']:,}"
        yield "test rows", f"all others but {split['spare']}; {split['n_test']} at least"
        yield "equal texts, groups, pairs", "may be on both sides; tables say how many"
        yield "a dataset's own split", "not looked at; refused unless `split: ignore`"
    elif split["groups"] == "elsewhere":
        yield "split", "all rows train, and the datasets of `apply_to` test"
        yield "test rows", f"{split['least_test']} of each class of such a dataset at least"
        yield "equal texts, groups, pairs", "on one side within validation"
        yield "a dataset's own split", "not looked at"
    else:
        yield "split", "whole texts, groups and pairs, at random"
        yield "train rows", f"at most {split['n_train']:,}"
        share = f"{split['test_fraction']:.0%} of each class"
        yield "test rows", f"{share}; {split['least_test']} of each class at least"
        yield "equal texts, groups, pairs", "on one side, also within validation"
        yield (
            "a dataset's own split",
            "is followed; train rows that share a group with a test row go",
        )
    if "select" in p:
        yield "chosen and compared by", metrics.all_metrics()[p["select"]].label
    yield "validation", _validation(rule)
    yield "beginning of sequence", (
        "causal models must have read one, where their tokenizer has it"
        if p["bos"] == "added" else "as the model's config says"
    )  # fmt: skip
    yield "interval of the main metric", f"{p['interval']['level']:.0%}"
    if controls := p.get("controls"):
        yield (
            "controls of directions",
            (
                f"{controls['random']} random directions, {controls['permuted']} fits on permuted labels"
            ),
        )
    if names := p.get("baselines"):
        yield "baselines, whatever methods are named", ", ".join(names)


def _shares(split: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    whole = split["kind"] == "stratified"
    again = "anew for each seed" if split["seed"] == "per_run" else f"once, seed {split['seed']}"
    yield "split", f"by shares, {'of each class' if whole else 'at random'}; drawn {again}"
    yield "test rows", f"{split['test']:.1%}"
    yield "validation rows", f"{split['validation']:.1%}"
    yield "groups", "on one side" if whole else "may be on both sides; tables say how many"
    yield "a collection's own split", "is followed"


def _validation(rule: Mapping[str, Any] | str) -> str:
    if isinstance(rule, str):
        return "the split's own rows; what they choose is not fitted again"
    if rule["groups"] == "whole":
        return (
            f"{rule['folds']} folds of whole texts, groups and pairs, fewer where there are fewer; "
            "those with both classes in both parts count"
        )
    held = rule["holdout"]
    return (
        f"none up to {rule['none_up_to']} train rows; every pair left out up to "
        f"{rule['leave_pairs_out_up_to']}; {rule['folds']} folds below {rule['folds_below']}; then the "
        f"last {held['fraction']:.0%} held out, {held['rows']} at most. A fold whose fit part has one "
        f"class scores {rule['one_class_fold']:g}. Of equal scores"
        + (f" (to {rule['digits']} digits)" if "digits" in rule else "")
        + (" of many classes those win that are right most often, then" if "ties" in rule else "")
        + " the first hyperparameters"
        + ("." if "ties" in rule else " win.")
    )


def _setting(item: tuple[str, Mapping[str, Any]]) -> tuple[str, ...]:
    name, s = item
    also = [f"tested on `{s['test_set']}`"] if "test_set" in s else []
    also += [f"{s['n_train']:,} train rows"] if "n_train" in s else []
    also += [f"k of {', '.join(map(str, s['ks']))}"] if "ks" in s else []
    also += [f"methods {', '.join(s['methods'])}"] if "methods" in s else []
    also += [f"the last {s['max_tokens']} tokens"] if "max_tokens" in s else []
    words = {"n_train": "train rows", "ratio": "share of class 1", "noise": "flipped train labels"}
    return (
        name,
        words.get(s.get("vary", ""), ""),
        ", ".join(f"{v:g}" for v in s.get("values", ())),
        "; ".join(also),
    )


def _method(item: tuple[str, Mapping[str, Any]]) -> tuple[str, ...]:
    name, how = item
    kinds = [k for k in methods.families()[how["family"]] if methods.fits_kind(how, k)]
    columns = {"standard": "standardised", "units": "standardised by unit"}.get(
        how["scaler"], "as they are"
    )
    if "project" in how:
        columns += f", projected on {how['project'].replace('_', ' ')}"
    if "ks" in how:
        columns = f"k latents by rule {how['ranking']}, {columns}"
    default = how.get("default", True)
    said = {True: "yes", False: "no"}[default] if isinstance(default, bool) else ", ".join(default)
    return (
        name,
        how["family"],
        how["reads"].replace("_", " "),
        ", ".join(kinds),
        columns,
        _grid(how),
        said,
    )


def _grid(how: Mapping[str, Any]) -> str:
    found = [f"along {how['along'].replace('_', ' ')}"] if "along" in how else []
    found += ["trained on the test texts, fold by fold"] if "in_domain" in how else []
    found += [f"{k} {_values(how[k])}" for k in ("C", "alpha", "shrinkage", "depth") if k in how]
    found += [f"{k} {_values(v)}" for k, v in (how.get("grid") or {}).items()]
    found += [f"up to {how[k]} {k}" for k in ("components", "neighbours") if k in how]
    if "space" in how:
        draws = "1 draw" if how["draws"] == 1 else f"{how['draws']} draws"
        found.append(f"{draws} of {', '.join(s['param'] for s in how['space'])}")
    return "; ".join(found)


def _values(grid: Any) -> str:
    if isinstance(grid, Mapping):
        [(kind, (start, stop, number))] = grid.items()
        low, high = (
            (f"1e{start:g}", f"1e{stop:g}") if kind == "logspace" else (f"{start:g}", f"{stop:g}")
        )
        return f"{low} … {high} ({number})"
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in grid)


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(str(c).replace('|', chr(92) + '|') for c in row)} |" for row in rows]
    return [*lines, ""]


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
