"""The attention probe: one query decides which tokens of a row count, one vector reads them.

The logit of a row with tokens x is (Σ_t w_t x_t)·v + b with w = softmax(x·q) over its own tokens
(Kantamneni et al. 2025, arXiv 2502.16681). Rows stay ragged: there is no padding to mask.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from actprobe.probes import metrics
from actprobe.probes.keep import Kept, scorers
from actprobe.probes.kinds import BINARY
from actprobe.probes.methods import method
from actprobe.probes.search import Fitted, Task
from actprobe.probes.sizes import CannotFit
from actprobe.probes.tokens import Ragged


def _kept(fitted: Fitted, task: Task) -> Kept:
    model: Kept = fitted.model
    return model


@method("attention", own_search=True, keep=_kept)
def attention(task: Task) -> Fitted:
    """Train with Adam on all fit rows at once; the step with the best validation AUC counts.

    The method has learning_rate, steps, init (standard deviation of q and v) and holdout (share of
    the train rows that validates). Of equal AUCs the first step counts. Without both classes among the
    validation rows the last step does, and val_score is NaN. Raises CannotFit for a row without tokens
    and when no row is left to validate.
    """
    train, test, y, how, seed = task.X_train, task.X_test, task.y_train, task.how, task.seed
    for part in (train, test):
        if not part.lengths.all():
            raise CannotFit(f"{int((part.lengths == 0).sum())} rows have no token")
    order = np.random.RandomState(seed).permutation(len(y))
    n_fit = int((1 - how["holdout"]) * len(y))
    if not 0 < n_fit < len(y):
        raise CannotFit(f"{len(y)} train rows are too few to hold some out")
    at_fit, at_val = order[:n_fit], order[n_fit:]
    most = int(train.lengths.max())
    fitted, held = (_Rows(train.rows(rows, most)) for rows in (at_fit, at_val))
    labels = torch.from_numpy(y[at_fit].astype(np.float32))

    generator = torch.Generator().manual_seed(seed)
    weights = how["init"] * torch.randn(train.shape[1], 2, generator=generator)
    weights.requires_grad_()
    bias = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([weights, bias], lr=how["learning_rate"])
    best, kept = -1.0, (weights, bias, 0)
    for step in range(1, how["steps"] + 1):
        optimiser.zero_grad()
        logits = fitted.logits(weights, bias)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        optimiser.step()
        with torch.no_grad():
            auc = metrics.main(BINARY, y[at_val], held.logits(weights, bias).numpy())
        if auc > best or np.isnan(auc):
            best, kept = auc, (weights.detach().clone(), bias.detach().clone(), step)
    weights, bias, step = kept
    query, value = weights.detach().double().numpy().T
    arrays = {"query": query, "value": value, "intercept": bias.detach().double().numpy()}

    def answer(rows: Ragged) -> NDArray[np.float64]:
        return scorers.linked(scorers.attention(arrays, {}, rows), "logistic")

    scores = answer(test)
    held_out = np.full(len(y), np.nan)
    held_out[at_val] = answer(train.rows(at_val, most))
    return Fitted(
        scores=scores,
        predicted=(scores > 0.5).astype(np.int64),
        val_score=best,
        converged=True,
        unconverged=0,
        params={"step": step},
        model=Kept("attention", arrays, (), "logistic"),
        answer=answer,
        held_out=held_out,
    )


class _Rows:
    """Tokens as a tensor, and which row each belongs to."""

    def __init__(self, tokens: Ragged) -> None:
        self.x = torch.from_numpy(tokens.x)
        self.lengths = torch.from_numpy(tokens.lengths)
        self.row = torch.repeat_interleave(torch.arange(len(tokens.lengths)), self.lengths)

    def logits(self, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """[n rows]; weights [d, 2] are q and v. By linearity (Σ w x)·v = Σ w (x·v)."""
        score, value = (self.x @ weights).unbind(dim=1)
        n = len(self.lengths)
        highest = score.new_zeros(n).scatter_reduce(
            0, self.row, score.detach(), "amax", include_self=False
        )
        weight = torch.exp(score - highest[self.row])
        total = score.new_zeros(n).index_add(0, self.row, weight)
        return score.new_zeros(n).index_add(0, self.row, weight * value) / total + bias
