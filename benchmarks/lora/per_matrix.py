"""The nine representations one matrix at a time, in torch, as a plain feature extractor has them."""

from __future__ import annotations

import math

import torch

EPS = 1e-8


def simple_stats(x):
    return torch.stack([torch.linalg.norm(x), x.mean(), x.std(), x.max(), x.min()])


def rank_based(x):
    levels = torch.tensor([0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99])
    q = torch.quantile(x.flatten(), levels)
    return torch.cat([q, (q[5] - q[3])[None], (q[8] - q[0])[None]])


def _moments(x):
    z = (x - x.mean()) / (x.std() + EPS)
    return (z**3).mean(), (z**4).mean()


def stats(x):
    return torch.stack([x.mean(), x.std(), x.median(), x.min(), x.max(), *_moments(x)])


def spectral(x):
    s = torch.zeros(10)
    found = torch.linalg.svdvals(x)[:10]
    s[: len(found)] = found
    n = s / (s.sum() + EPS)
    gaps = (s[:-1] - s[1:]) / (s[:-1] + EPS)
    rest = torch.stack([-(n * (n + EPS).log()).sum(), s[0] / (s[9] + EPS), s.sum()])
    return torch.cat([s, n, gaps, rest])


def matrix_norms(x):
    f, s = torch.linalg.norm(x), torch.linalg.svdvals(x)
    a = x.abs()
    return torch.stack([f, s.sum(), s[0], a.sum(0).max(), a.sum(1).max(), s.sum() / (f + EPS),
                        s[0] / (f + EPS)])  # fmt: skip


def distribution(x):
    flat = x.flatten()
    q = torch.quantile(flat, torch.tensor([0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95]))
    mad = (flat - flat.mean()).abs().mean()
    rest = [q[4] - q[2], mad, x.std() / (x.mean().abs() + EPS), *_moments(x)]
    return torch.cat([q, torch.stack(rest)])


def frequency(x):
    g = torch.fft.fft2(x).abs().flatten()
    top = g.topk(10).values
    share = (top**2).sum() / ((g**2).sum() + EPS)
    return torch.cat([top, torch.stack([g.mean(), g.std(correction=0), g.max(), share])])


def info_theoretic(x):
    h = torch.histc(x, 50, x.min().item(), x.max().item())
    p = h / (h.sum() + EPS)
    entropy = -(p * (p + EPS).log()).sum()
    return torch.stack([entropy, entropy / math.log(50)])


def ensemble(x):
    parts = (spectral, matrix_norms, distribution, frequency, info_theoretic)
    return torch.cat([f(x) for f in parts])


NINE = [simple_stats, rank_based, stats, spectral, matrix_norms, distribution, frequency,
        info_theoretic, ensemble]  # fmt: skip
