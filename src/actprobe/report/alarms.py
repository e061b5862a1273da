"""The part of the page about false alarms: thresholds for a stated rate, and what they let through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from actprobe.base import pages
from actprobe.base.pages import number
from actprobe.probes.alarms import least_negatives, negatives_for_a_factor_of_two
from actprobe.report import errors
from actprobe.results import views


def part(alarms: pd.DataFrame | None, table: pd.DataFrame) -> dict[str, Any] | None:
    """Sentences and a table of the probe that the headline names, of the first seed.

    alarms: of `results.alarms.table`; table: the tidy table of texts. None where no chosen fit has a
    threshold.
    """
    if alarms is None or alarms.empty:
        return None
    chosen = [
        errors.of_fit(alarms, fit, "label").head(1) for _, fit in errors.fits(table).iterrows()
    ]
    rows = pd.concat([alarms.iloc[:0], *chosen])
    if rows.empty:
        return None
    rows = views.named(rows).assign(task=views.tasks(rows))
    return {"facts": _facts(rows), "table": _table(rows)}


def _facts(rows: pd.DataFrame) -> list[str]:
    rate, fewest, most = rows["allowed"].max(), rows["negatives"].min(), rows["negatives"].max()
    between = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    least, better = least_negatives(rate), negatives_for_a_factor_of_two(rate)
    found = [f"Each threshold stands on {between} rows of class 0 that were not fitted."]
    if most < least:
        found.append(
            f"That is too few to say {rate:.1%}: even where none of them is above the threshold, its "
            f"true rate may be larger. {least:,} such rows without an alarm would make it 95 % sure "
            f"that the rate is at most {rate:.1%}; from about {better:,} on it is known within a factor "
            "of two."
        )
    alarms, negatives = int(rows["false_alarms"].sum()), int(rows["test_negatives"].sum())
    found.append(
        f"On test rows they give {views.count(alarms, 'false alarm')} in {negatives:,} rows of class 0 "
        f"({alarms / negatives:.1%}), each dataset with its own threshold."
        if negatives
        else "No test row is of class 0."
    )
    return found


def _table(rows: pd.DataFrame) -> pages.Table:
    columns: dict[str, pages.Cell] = {
        "probe of": lambda r: {"text": r["task"], "small": _where(r)},
        "allowed": lambda r: number(r["allowed"], ".1%"),
        "threshold": pages.of_number("threshold", ".6g"),
        "decided by": lambda r: {
            "text": r["decided_by"],
            "small": f"{r['flagged']:,} of {r['negatives']:,} of class 0 above",
        },
        "true rate": lambda r: f"{r['true_low']:.1%}–{r['true_high']:.1%}",
        "false alarms": lambda r: _share(r, "false_alarms", "test_negatives", "fpr"),
        "found": lambda r: _share(r, "found", "test_positives", "tpr"),
    }
    made = pages.table(rows, columns, 1)
    assert made is not None
    return made


def _where(r: Mapping[str, Any]) -> str:
    return f"{r['probe']} on {r['source']} ({r['protocol']}, seed {r['seed']})"


def _share(r: Mapping[str, Any], k: str, n: str, share: str) -> dict[str, str]:
    """ "2 of 61", and the share with its interval below."""
    low, high = r[f"{share}_low"], r[f"{share}_high"]
    ends = "" if pd.isna(low) else f" ({low:.1%}–{high:.1%})"
    return {"text": f"{r[k]:,} of {r[n]:,}", "small": f"{number(r[share], '.1%')}{ends}"}
