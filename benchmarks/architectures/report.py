"""`results.md` from `results.csv`: what was equal, what was refused, what could not be built."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from check import CRASHED, EQUAL, NOT_BUILDABLE, REFUSED, WRONG

from actprobe.models.architectures import FAMILIES

Row = Mapping[str, str]
_NO_TEXT = "no text"

HEAD = """# Architectures

    python benchmarks/architectures/run.py              # those without a result
    python benchmarks/architectures/run.py fnet t5      # these, again

Every model type that `AutoModel` or `AutoModelForCausalLM` of transformers {transformers} can build
(PyTorch {torch}), with four layers of width 32 and random weights that all matter, read by actprobe's
own plan and job: seven rows of 11 to 35 tokens, every token of every site, in one padded batch. *Equal*
means

- equal to each row alone: the largest relative L2 difference of a token is {worst} over all of them and
  {typical} in the median (a wrong mask, position or layer gives 0.1 to 10);
- equal, layer by layer, to the hidden states that transformers gives for each row alone;
- the stream goes on from layer to layer, what attention and MLP give adds up to it (where a norm follows
  the sum, to its input), and is a linear function of z and of mlp_post; embed holds no position;
- equal again with two layers loaded and with a shared prefix, where these are allowed; in bfloat16 the
  batch is held against single rows too, and has the size that it has in float32.

Each runs in a child process with a time limit; results stand in `results.csv` as they come.

A tiny model shows wrong masks, layers, streams and norms. It does not show what begins beyond 35 tokens:
`models/together.py` and `models/families.py` hold what was found by reading for that (rotary positions
that depend on the longest row, attention that changes with the length).
"""


def write(rows: Sequence[Row], path: Path) -> None:
    """Write the three lists."""
    text = [r for r in rows if not r["reason"].startswith(_NO_TEXT)]
    of = {o: [r for r in text if r["outcome"] == o] for o in (EQUAL, REFUSED, NOT_BUILDABLE)}
    differences = [float(r["worst"]) for r in of[EQUAL]]
    faults = [r for r in text if r["outcome"] in (WRONG, CRASHED)]
    lines = [
        HEAD.format(
            transformers=transformers.__version__,
            torch=torch.__version__.split("+")[0],
            worst=f"{max(differences):.0e}",
            typical=f"{float(np.median(differences)):.0e}",
        ),
        f"{len(rows)} model types, of which {len(rows) - len(text)} read no text. Of the other "
        f"{len(text)}: {len(of[EQUAL])} equal, {len(of[REFUSED])} refused with a reason, "
        f"{len(of[NOT_BUILDABLE])} not buildable here, {len(faults)} wrong.\n",
        *_faults(faults),
        *_equal(of[EQUAL]),
        "## Refused\n",
        "By the plan where `config.json` tells, otherwise by the job before anything is written.\n",
        *_table("model type, by, reason", ([*_name(r), r["where"], _short(r)] for r in of[REFUSED])),
        "## Not buildable\n",
        "What transformers said when the tiny config or model was made: a library that is not "
        "installed, or sizes that do not fit together.\n",
        *_table("model type, reason", ([*_name(r), _short(r)] for r in of[NOT_BUILDABLE])),
        "## Without text\n",
        "Models of images, sound, time series and the like, which take no token ids: "
        + ", ".join(f"`{r['model_type']}`" for r in rows if r["reason"].startswith(_NO_TEXT)) + ".",
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


def _faults(faults: Sequence[Row]) -> Iterable[str]:
    if faults:
        yield "## Wrong\n"
        yield from _table("model type, reason", ([*_name(r), _short(r)] for r in faults))


def _equal(rows: Sequence[Row]) -> Iterable[str]:
    yield "## Equal\n"
    n = len(FAMILIES)
    yield f"With all sites ({n} families of `models/architectures.py`, some under several names):\n"
    yield from _grouped(r for r in rows if "attn_out" in r["sites"])
    yield "With `resid_pre` and `resid_post`:\n"
    yield from _grouped(r for r in rows if "attn_out" not in r["sites"])
    half = [r["model_type"] for r in rows if "half:" in r["reason"]]
    yield "In float32 only (in bfloat16 refused: an operation is not there, or padding changes a row):"
    yield ", ".join(f"`{n}`" for n in half) + ".\n"


def _grouped(rows: Iterable[Row]) -> Iterable[str]:
    """One line for each way in which attention and MLP come into the stream."""
    found: dict[str, list[str]] = defaultdict(list)
    for r in rows:
        found[r["sums"].partition("; ")[2] or "the stream alone"].append(r["model_type"])
    for how, names in sorted(found.items()):
        yield f"- {how} ({len(names)}): " + ", ".join(f"`{n}`" for n in names)
    yield ""


def _short(r: Row) -> str:
    """The reason without what every reason begins with, on one line."""
    text = " ".join(r["reason"].split())
    for before in (
        "cannot be read: ",
        "activations[0] (tiny): site 'resid_post.0': ",
        "models.tiny: ",
    ):
        text = text.rpartition(before)[2]
    text = text.replace("|", "\\|")
    return text if len(text) < 200 else text[:200] + " …"


def _name(r: Row) -> list[str]:
    return [f"`{r['model_type']}`"]


def _table(head: str, rows: Iterable[Sequence[str]]) -> Iterable[str]:
    columns = head.split(", ")
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""
