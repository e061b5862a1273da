"""Training a top-k SAE on token activations.

Gao et al. 2024 (arXiv 2406.04093): top-k activation, tied initialisation, unit-norm decoder, Adam,
and an auxiliary loss in which dead latents model what the living ones leave over (appendix A).
Gradients are written out: with k non-zeros per token all but one product is sparse.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from actprobe.sae.checkpoint import Checkpoint
from actprobe.sae.records import Training
from actprobe.sae.sizes import MASSIVE
from actprobe.sae.topk import largest

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_GATHER = 16  # tokens whose decoder rows are gathered together: they stay in the cache
_CHUNK = 1 << 15  # parameters that Adam updates together, for the same reason


@dataclass
class Parameters:
    """W_enc, W_dec [F, d] (a latent per row), b_enc [F], b_dec [d]; gradients look the same."""

    W_enc: Floats
    W_dec: Floats
    b_enc: Floats
    b_dec: Floats


@dataclass(frozen=True)
class Codes:
    """The k chosen latents of each token, ascending, and their activations (0 if negative), [n, k].

    width: F.
    """

    latents: NDArray[np.int32]
    values: Floats
    width: int

    def matrix(self, values: Floats | None = None) -> csr_array:
        """CSR [n, F] of the activations, or of other values at their places."""
        n, k = self.latents.shape
        data = self.values if values is None else values
        ends = np.arange(0, n * k + 1, k, dtype=np.int32)
        return csr_array((data.ravel(), self.latents.ravel(), ends), (n, self.width))


def top(pre: Floats, k: int) -> Codes:
    """The k largest pre-activations of each token."""
    width = pre.shape[1]
    mask = pre >= np.partition(pre, width - k, axis=1)[:, width - k, None]
    flat = np.flatnonzero(mask)
    if len(flat) != len(pre) * k:  # equal values
        flat = np.flatnonzero(largest(pre, k))
    places = flat.reshape(-1, k)
    first = np.arange(len(pre))[:, None] * width
    return Codes((places - first).astype(np.int32), np.maximum(pre.ravel()[places], 0), width)


def begin(width: int, x: Floats, rng: np.random.Generator) -> Parameters:
    """Random unit decoder rows, the encoder their copy, b_dec the mean of x."""
    w: Floats = rng.standard_normal((width, x.shape[1]), dtype=np.float32)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    return Parameters(w.copy(), w, np.zeros(width, np.float32), x.mean(axis=0))


def preactivations(p: Parameters, x: Floats) -> Floats:
    """(x - b_dec)·W_encᵀ + b_enc, float32 [n, F]."""
    pre: Floats = np.matmul(x - p.b_dec, p.W_enc.T)
    pre += p.b_enc
    return pre


def gradient(
    p: Parameters, x: Floats, k: int, dead: NDArray[np.int64], aux_k: int, aux_weight: float
) -> tuple[float, Codes, Parameters]:
    """Mean squared error per entry of x [n, d], the codes, and the gradient of the whole loss.

    dead: latents of the auxiliary loss: aux_weight times the share of the residual that their
    aux_k largest do not explain (less where fewer than aux_k are dead).
    """
    pre = preactivations(p, x)
    codes = top(pre, k)
    error = codes.matrix() @ p.W_dec + p.b_dec - x
    loss = float(np.mean(np.square(error), dtype=np.float64))
    grad = _sparse_gradient(p, x, codes, error * np.float32(2 / x.size))
    if len(dead) and aux_weight:
        few = min(aux_k, len(dead))
        weight = aux_weight * few / aux_k
        sub = Parameters(p.W_enc[dead], p.W_dec[dead], p.b_enc[dead], p.b_dec)
        aux = top(np.ascontiguousarray(pre[:, dead]), few)
        left = aux.matrix() @ sub.W_dec + error  # explained minus (x - x_hat)
        scale = np.float32(2 * weight / max(float(np.sum(np.square(error))), 1e-12))
        extra = _sparse_gradient(sub, x, aux, left * scale)
        grad.W_enc[dead] += extra.W_enc
        grad.W_dec[dead] += extra.W_dec
        grad.b_enc[dead] += extra.b_enc
    return loss, codes, grad


def _sparse_gradient(p: Parameters, x: Floats, codes: Codes, error: Floats) -> Parameters:
    """Gradient of a loss on z·W_dec + b_dec, whose gradient is `error` [n, d]."""
    inner = np.empty_like(codes.values)
    for a in range(0, len(x), _GATHER):
        part = slice(a, a + _GATHER)
        rows = p.W_dec[codes.latents[part]]
        np.matmul(rows, error[part, :, None], out=inner[part, :, None])
    inner *= codes.values > 0
    b_enc = np.bincount(codes.latents.ravel(), inner.ravel(), len(p.b_enc)).astype(np.float32)
    return Parameters(
        codes.matrix(inner).T.tocsr() @ (x - p.b_dec),
        codes.matrix().T.tocsr() @ error,
        b_enc,
        error.sum(axis=0) - b_enc @ p.W_enc,
    )


class Adam:
    """Kingma & Ba 2015, over all parameters; W_dec keeps rows of norm one."""

    def __init__(self, p: Parameters):
        self._p, self.steps = p, 0
        self.moments = {
            n: (np.zeros(v.size, np.float32), np.zeros(v.size, np.float32))
            for n, v in vars(p).items()
        }

    def step(self, grad: Parameters, rate: float) -> None:
        """One update; gradients along decoder rows are left out, their norm is kept anyway."""
        self.steps += 1
        w = self._p.W_dec
        grad.W_dec -= np.einsum("fd,fd->f", grad.W_dec, w)[:, None] * w
        first, second = (1 - b**self.steps for b in _BETAS)
        for name, (m, v) in self.moments.items():
            value, g = getattr(self._p, name).reshape(-1), getattr(grad, name).reshape(-1)
            for a in range(0, len(m), _CHUNK):
                part = slice(a, a + _CHUNK)
                m[part] += (1 - _BETAS[0]) * (g[part] - m[part])
                v[part] += (1 - _BETAS[1]) * (g[part] * g[part] - v[part])
                size = np.sqrt(v[part] / second)
                value[part] -= (rate / first) * m[part] / (size + _EPSILON)
        w /= np.linalg.norm(w, axis=1, keepdims=True)


@dataclass(frozen=True)
class Trained:
    """A trained SAE on the scale of its input, and how it got there.

    curve: one row per measurement: tokens seen, share of variance unexplained (FVU) in training
    since the last one and on held-out tokens, dead latents, FVU on held-out tokens without massive
    activations; stopped: why training ended; massive: held-out tokens with such activations.
    """

    parameters: Parameters
    curve: list[list[float]]
    stopped: str
    massive: int


def train(
    batches: Iterator[Floats],
    first: Floats,
    held: Floats,
    n: int,
    settings: Training,
    checkpoint: Checkpoint,
) -> Trained:
    """Train on batches for at most `epochs` times n tokens.

    first: tokens [m, d] that set mean and scale; held: tokens to measure on; settings: the
    config's `train`; checkpoint: where an earlier run may have left its state. Activations are
    scaled to unit variance per entry while training.
    """
    size, k, width = settings.batch_size, settings.k, settings.width
    scale = np.float32(np.sqrt(np.var(first, axis=0, dtype=np.float64).mean()))
    p = begin(width, first / scale, np.random.default_rng(settings.seed))
    held = held / scale
    norm = np.linalg.norm(held, axis=1)
    ordinary = norm <= MASSIVE * np.median(norm)
    variance, spread = (
        float(np.var(x, axis=0, dtype=np.float64).mean()) for x in (held, held[ordinary])
    )
    steps = max(1, int(settings.epochs * n / size))
    every = max(1, n // size // 10)
    rate = settings.learning_rate * (16384 / width) ** 0.5
    aux_k = settings.aux_k or max(1, first.shape[1] // 2)
    adam, idle = Adam(p), np.zeros(width, np.int64)
    curve: list[list[float]] = []
    losses: list[float] = []
    best, waited, stopped = np.inf, 0, "all epochs done"
    arrays = vars(p) | {f"{n}.{i}": m for n, ms in adam.moments.items() for i, m in enumerate(ms)}
    arrays["idle"] = idle
    if state := checkpoint.restore(arrays):
        adam.steps, curve, best, waited = (state[k] for k in ("steps", "curve", "best", "waited"))
        losses = state.get("losses", [])  # parts of earlier versions were saved at measurements
        log.info("resumed after %d tokens", adam.steps * size)
        for _ in range(adam.steps):
            next(batches)
    for step in range(adam.steps + 1, steps + 1):
        dead = np.flatnonzero(idle > settings.dead_after)
        loss, codes, grad = gradient(p, next(batches) / scale, k, dead, aux_k, settings.aux_weight)
        adam.step(grad, rate * _schedule(step, steps))
        idle += size
        idle[codes.latents[codes.values > 0]] = 0
        losses.append(loss)
        if step % every == 0 or step == steps:
            errors = _errors(p, held, k)
            fvu = errors.mean() / variance
            plain = errors[ordinary].mean() / spread if spread > 0 else fvu
            row = [step * size, _round(np.mean(losses)), _round(fvu), len(dead), _round(plain)]
            curve.append(row)
            log.info("%d tokens: FVU %.4g, held out %.4g, %d of %d dead", *row[:4], width)
            losses = []
            best, waited = (fvu, 0) if fvu < best else (best, waited + 1)
            if waited >= settings.patience:
                stopped = f"no better in {waited} measurements"
                break
        state = {"steps": step, "curve": curve, "best": best, "waited": waited, "losses": losses}
        checkpoint.save(arrays, state)
    p.b_enc *= scale
    p.b_dec *= scale
    return Trained(p, curve, stopped, int(np.count_nonzero(~ordinary)))


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up over the first twentieth, down over the last fifth."""
    return min(1.0, step / (0.05 * steps), (steps - step + 1) / (0.2 * steps))


def _errors(p: Parameters, x: Floats, k: int) -> NDArray[np.float64]:
    """Mean squared error of each row of x, per entry."""
    found = []
    for low in range(0, len(x), 1024):
        part = x[low : low + 1024]
        x_hat = top(preactivations(p, part), k).matrix() @ p.W_dec + p.b_dec
        found.append(np.mean(np.square(x_hat - part), axis=1, dtype=np.float64))
    return np.concatenate(found)


def _round(value: float | np.floating) -> float:
    return float(f"{value:.6g}")
