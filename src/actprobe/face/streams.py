"""Scores of probes token by token, with a state that does not grow: what a position, or a monitor, makes
of the tokens so far.

Every step takes a chunk of tokens, [rows, tokens], of which some count, and gives the score of each
prefix; a row's score stays where a token does not count. State is one number for each row and column, or
one vector (mean and max of activations).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Tensor = torch.Tensor
_BLOCK = 64  # tokens of an exponential average at a time


@dataclass
class Last:
    """The last token that counts."""

    state: Tensor | None = None

    def __call__(self, z: Tensor, counts: Tensor) -> Tensor:
        """z [b, t, …], counts bool [b, t] -> [b, t, …]; NaN before the first that counts."""
        first = _first(self.state, z)
        t = z.shape[1]
        if t == 1:  # while it generates
            self.state = torch.where(counts.reshape(-1, *[1] * (z.dim() - 2)), z[:, 0], first)
            return self.state[:, None]
        at = torch.where(counts, torch.arange(1, t + 1, device=z.device), 0).cummax(dim=1).values
        both = torch.cat([first[:, None], z], dim=1)
        index = at.reshape(*at.shape, *[1] * (z.dim() - 2)).expand(-1, -1, *z.shape[2:])
        out = torch.gather(both, 1, index)
        self.state = out[:, -1]
        return out


@dataclass
class Mean:
    """The mean of those that count."""

    total: Tensor | None = None
    n: Tensor | None = None

    def __call__(self, z: Tensor, counts: Tensor) -> Tensor:
        shaped = counts.reshape(*counts.shape, *[1] * (z.dim() - 2))
        total, n = torch.where(shaped, z, 0), shaped.to(z.dtype)
        if z.shape[1] > 1:
            total, n = total.cumsum(dim=1), n.cumsum(dim=1)
        if self.total is not None and self.n is not None:
            total, n = total + self.total[:, None], n + self.n[:, None]
        self.total, self.n = total[:, -1], n[:, -1]
        return total / n


@dataclass
class Max:
    """The largest of those that count, in every column."""

    state: Tensor | None = None

    def __call__(self, z: Tensor, counts: Tensor) -> Tensor:
        shaped = counts.reshape(*counts.shape, *[1] * (z.dim() - 2))
        out = torch.where(shaped, z, -torch.inf).cummax(dim=1).values
        if self.state is not None:
            out = torch.maximum(out, self.state[:, None])
        self.state = out[:, -1]
        return torch.where(torch.isneginf(out), torch.nan, out)


@dataclass
class Ema:
    """e_t = alpha z_t + (1 - alpha) e_{t-1} of those that count, and with `largest` the largest so far.

    start: e_0; None takes the first z for it, so that the average is not drawn to 0 at the start.
    """

    alpha: float = 0.1
    start: float | None = None
    largest: bool = False
    state: Tensor | None = None
    best: Max = field(default_factory=Max)

    def __call__(self, z: Tensor, counts: Tensor) -> Tensor:
        blocks = zip(z.split(_BLOCK, dim=1), counts.split(_BLOCK, dim=1), strict=True)
        out = torch.cat([self._block(*block) for block in blocks], dim=1)
        return self.best(out, counts & ~torch.isnan(out[..., 0])) if self.largest else out

    def _block(self, z: Tensor, counts: Tensor) -> Tensor:
        """The recursion written out: with n_t tokens that count up to t, and d = 1 - alpha,
        e_t = d^n_t e_0 + alpha Σ_{j ≤ t} d^(n_t - n_j) z_j."""
        n = counts.cumsum(dim=1)
        before = self.state
        if before is None:
            before = torch.full_like(z[:, 0], torch.nan if self.start is None else self.start)
        began = ~torch.isnan(before)
        distance = (n[:, :, None] - n[:, None, :]).clamp_min(0).to(z.dtype)
        low = torch.ones(z.shape[1], z.shape[1], dtype=torch.bool, device=z.device).tril()
        weight = torch.where(low & counts[:, None, :], (1 - self.alpha) ** distance, 0)
        decay = ((1 - self.alpha) ** n.to(z.dtype))[:, :, None]
        # Where nothing came before, the first that counts stands for it.
        first = Last()(z, counts & (n == 1))
        begin = torch.where(began[:, None], before[:, None], first)
        out = decay * begin + self.alpha * (weight @ torch.where(counts[:, :, None], z, 0))
        out = torch.where((n > 0)[:, :, None] | began[:, None], out, torch.nan)
        self.state = out[:, -1]
        return out


@dataclass
class Attention:
    """Σ w_t v_t with w = softmax(a_t) over those that count (online: Milakov and Gimelshein 2018).

    Sums are kept as logarithms, those of positive and negative values apart, so that no early score is
    lost where a later token asks for much more.
    """

    state: Tensor | None = None

    def __call__(self, asked: Tensor, said: Tensor, counts: Tensor) -> Tensor:
        """asked, said [b, t] -> [b, t]."""
        logs = torch.stack(
            [asked, asked + said.clamp_min(0).log(), asked + (-said).clamp_min(0).log()]
        )
        logs = torch.where(counts, logs, -torch.inf)
        sums = torch.logcumsumexp(logs, dim=2)
        if self.state is not None:
            sums = torch.logaddexp(sums, self.state[:, :, None])
        self.state = sums[:, :, -1]
        return (sums[1] - sums[0]).exp() - (sums[2] - sums[0]).exp()


MONITORS: dict[str, Callable[..., Any]] = {"last": Last, "mean": Mean, "max": Max, "ema": Ema}


def _first(state: Tensor | None, z: Tensor) -> Tensor:
    return torch.full_like(z[:, 0], torch.nan) if state is None else state
