"""What of the files of collections was left out, and why: a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from actprobe.base.errors import BadInput
from actprobe.cache import store
from actprobe.lora.index import Index
from actprobe.lora.telling import REFUSED

_MOST = 20  # kinds of left-out tensors that are told


def left_out(indexes: Iterable[str], features: Iterable[str]) -> pd.DataFrame:
    """All that was left out: columns REFUSED.

    features: of each collection one artefact, which knows the files whose weights turned out unusable.
    """
    return pd.concat([refused(indexes), unusable(features)], ignore_index=True)


def refused(indexes: Iterable[str]) -> pd.DataFrame:
    """The files that were left out, with the reason, and the tensors that were left out of others."""
    found = []
    for path in indexes:
        name = Path(path).name.rsplit(".", 2)[0]
        try:
            loaded = Index.open(path)
        except BadInput as e:
            found.append({"collection": name, "id": "", "reason": str(e)})
            continue
        why = loaded.refused
        found += [
            {"collection": name, "id": loaded["id"][i], "reason": why[i]}
            for i in np.flatnonzero(why != "")
        ]
        found += _incomplete(name, loaded["id"][why == ""], loaded["extra"][why == ""])
    return pd.DataFrame(found, columns=REFUSED)


def _incomplete(name: str, ids: np.ndarray, extra: np.ndarray) -> list[dict[str, str]]:
    """The commonest tensors that were left out of LoRAs, a row for those that lost the same."""
    counts = Counter(extra[extra != ""].tolist())
    found = [
        {
            "collection": name,
            "id": (f"{n} LoRAs, e.g. " if n > 1 else "") + ids[extra == t][0],
            "reason": f"read without {t}",
        }
        for t, n in counts.most_common(_MOST)
    ]
    if others := counts.total() - sum(n for _, n in counts.most_common(_MOST)):
        found.append({"collection": name, "id": f"{others} LoRAs", "reason": "read without others"})
    return found


def unusable(features: Iterable[str]) -> pd.DataFrame:
    """The files whose header is fine and whose weights are not."""
    found = []
    for path in features:
        try:
            with store.open_h5(path) as f:
                ids = np.strings.decode(f["id"][:], "utf-8")
                reasons = np.strings.decode(f["reason"][:], "utf-8", "ignore")  # may be cut
        except BadInput:
            continue
        found += [
            {"collection": Path(path).parent.name, "id": ids[i], "reason": reasons[i]}
            for i in np.flatnonzero(reasons != "")
        ]
    return pd.DataFrame(found, columns=REFUSED)
