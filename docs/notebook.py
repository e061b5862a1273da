# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # From a run to its errors
# This notebook reads the quickstart (`make run` computes it). Open it with jupytext, or run it as a
# script in the folder in which you run snakemake.

# %%
import numpy as np

import actprobe

CONFIG = "config/config.yaml"
DATASET = "95_toxic_is"
SOURCE = "smollm2/resid_post.15.mean"
PROTOCOL = "actprobe-1"

run = actprobe.load(CONFIG)

# %% [markdown]
# ## What came out
# One row per fit; `test_score` is the AUC on rows that were not fitted.

# %%
table = run.table("probes")
columns = ["dataset", "source", "method", "test_score", "ci_low", "ci_high"]
best = table[columns].sort_values("test_score", ascending=False)
best.head(10)

# %% [markdown]
# ## One probe
# Its weights are in units of the activations, so it can be applied by hand.

# %%
probe = run.probe(DATASET, SOURCE, "logreg", protocol=PROTOCOL, seed=0)
found = run.activations(DATASET, SOURCE)
by_hand = found.x @ probe.coef_ + probe.intercept_
assert np.allclose(by_hand, probe.decision_function(found), atol=1e-4)
probe.card.numbers

# %% [markdown]
# ## What it gets wrong
# The test rows that it is most sure about, and wrong.

# %%
scores = probe.scores[probe.scores["split"] == "test"]
wrong = scores[scores["label"] != scores["prediction"]]
wrong = wrong.assign(margin=(wrong["score"] - probe.threshold).abs())
wrong = wrong.sort_values("margin", ascending=False).merge(
    run.texts(DATASET)[["id", "text"]], on="id"
)
wrong.head(5)

# %% [markdown]
# ## Which tokens say so
# The same weights on every token of a text.

# %%
text = wrong["text"].iloc[0] if len(wrong) else run.texts(DATASET)["text"].iloc[0]
(tokens,) = probe.score_texts([text], tokens=True, cut=True)
tokens.sort_values("score", ascending=False).head(10)

# %% [markdown]
# ## Does another layer make the same errors?
# Share of test rows on which two probes decide alike, for every source of this dataset.

# %%
others = run.scores(dataset=DATASET, method="logreg", protocol=PROTOCOL)
test = others[(others["split"] == "test") & (others["seed"] == 0)]
decided = test.pivot_table(index="id", columns="source", values="score") > 0.5
agreement = decided.apply(lambda a: decided.apply(lambda b: (a == b).mean()))
agreement
