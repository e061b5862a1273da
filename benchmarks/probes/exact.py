"""The exact optimum of the fast preset's L1 problems: python exact.py PROBLEMS.npz (needs glum).

Prints one JSON list: k, the chosen C and the test AUC of the path of glum's solver, warm-started
from strong to weak penalties, on the preset's grid and folds.
"""

import json
import sys

import numpy as np
from glum import GeneralizedLinearRegressor
from sklearn.metrics import roc_auc_score


def path(X, y, Cs):
    """C -> intercept and weights, for descending C."""
    found, start = {}, None
    for C in sorted(Cs):
        model = GeneralizedLinearRegressor(
            family="binomial", l1_ratio=1, alpha=1 / (C * len(y)), gradient_tol=1e-6,
            max_iter=200, start_params=start,
        ).fit(X, y)  # fmt: skip
        found[C] = model.intercept_, model.coef_
        if X.shape[1] > 1:
            start = np.r_[model.intercept_, model.coef_]
    return found


problem = np.load(sys.argv[1])
X, y, Cs, n, fit = (problem[name] for name in ("X", "y", "Cs", "n_train", "fit"))
result = []
for k in problem["ks"].tolist():
    A, b = X[:, :k], y.astype(float)
    weights = path(A[:fit], b[:fit], Cs.tolist())
    scores = [roc_auc_score(b[fit:n], A[fit:n] @ weights[C][1]) for C in Cs.tolist()]
    best = float(Cs[int(np.argmax(scores))])
    _, w = path(A[:n], b[:n], [C for C in Cs.tolist() if best >= C])[best]
    result.append([k, best, float(roc_auc_score(b[n:], A[n:] @ w))])
print(json.dumps(result))
