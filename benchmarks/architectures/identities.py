"""What must hold between the sites of a layer, whatever the architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from actprobe.models.architectures import Family

TOLERANCE = 1e-3

Sites = Mapping[str, list[np.ndarray]]  # site -> [tokens, d] of each row


def identities(x: Sites, family: Family | None) -> tuple[str, list[str]]:
    """(what holds, what does not).

    The stream goes on from layer to layer; attention and MLP are added to it, before a norm or not;
    attn_out is a linear function of z, and mlp_out of mlp_post, where no norm stands between.
    """
    layers = sorted({int(s.partition(".")[2]) for s in x if s.startswith("resid_post.")})
    broken = [
        f"resid_post.{n} is not resid_pre.{n + 1}"
        for n in layers[:-1]
        if not _equal(_all(x, f"resid_post.{n}"), _all(x, f"resid_pre.{n + 1}"))
    ]
    held = [] if broken else ["resid_post.L = resid_pre.L+1"]
    if family is None:
        return "; ".join(held), broken
    forms = set()
    for n in layers:
        at = {s.partition(".")[0]: _all(x, s) for s in x if s.partition(".")[2] == str(n)}
        forms.add(_added(at))
        if "resid_mid" in at and not _equal(at["resid_pre"] + at["attn_out"], at["resid_mid"]):
            broken.append(f"resid_mid.{n} is not resid_pre + attn_out")
        paths = {"attn_out": family.attn_out, "mlp_out": family.mlp_out}
        for taken, given in (("z", "attn_out"), ("mlp_post", "mlp_out")):
            plain = taken in at and "norm" not in paths[given]
            if plain and not _linear(at[taken], at[given]):
                broken.append(f"{given}.{n} is no linear function of {taken}")
    if len(forms) != 1 or None in forms:
        broken.append("resid_post is not what attention and MLP add to resid_pre")
    else:
        held.append(forms.pop())
    return "; ".join(held), broken


def same_everywhere(rows: Sequence[np.ndarray], ids: Sequence[Sequence[int]]) -> bool:
    """Whether a token has the same vector in every row and place: no position is in it."""
    first: dict[int, np.ndarray] = {}
    return all(
        _equal(vector[None], first.setdefault(token, vector)[None])
        for vectors, tokens in zip(rows, ids, strict=True)
        for vector, token in zip(vectors, tokens, strict=True)
    )


def _all(x: Sites, site: str) -> np.ndarray:
    return np.concatenate(x[site]).astype(np.float64)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    scale = np.maximum(np.linalg.norm(b, axis=-1), 1e-20)
    return a.shape == b.shape and bool((np.linalg.norm(a - b, axis=-1) <= TOLERANCE * scale).all())


def _added(at: Mapping[str, np.ndarray]) -> str | None:
    """How attention and MLP come into the stream."""
    if _equal(at["resid_pre"] + at["attn_out"] + at["mlp_out"], at["resid_post"]):
        return "resid_post = resid_pre + attn_out + mlp_out"
    total = at["mlp_in"] + at["mlp_out"]  # the norm before the MLP is part of the stream
    for centred in (total - total.mean(-1, keepdims=True), total):
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True))
        if _scaled(normed, at["resid_post"]):
            return "resid_post = norm(mlp_in + mlp_out)"
    return None


def _scaled(normed: np.ndarray, post: np.ndarray) -> bool:
    """Whether each dimension of `post` is a weight times that of `normed`, and a bias."""
    a, b = normed - normed.mean(0), post - post.mean(0)
    weights = (a * b).sum(0) / (a**2).sum(0)
    return bool(np.linalg.norm(a * weights - b) <= TOLERANCE * np.linalg.norm(b))


def _linear(taken: np.ndarray, given: np.ndarray) -> bool:
    """Whether a matrix and a bias make `given` of `taken`; there are more tokens than dimensions."""
    taken = np.concatenate([taken, np.ones((len(taken), 1))], axis=1)
    assert len(taken) > taken.shape[1]
    matrix, *_ = np.linalg.lstsq(taken, given, rcond=None)
    return bool(np.linalg.norm(taken @ matrix - given) <= TOLERANCE * np.linalg.norm(given))
