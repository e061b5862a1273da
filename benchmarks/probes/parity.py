"""The whole way of `saeprobes-0.4.2` beside the package that it reproduces, on real data.

    python benchmarks/probes/parity.py PYTHON

Run from the repository root in its environment; PYTHON is an interpreter with sae-probes 0.4.2 (and
sae-lens). Fourteen whole datasets: those of the quickstart and six others, read by the sentence encoder
of config/examples, because the package takes no samples and SmolLM2 would read for an hour. Its
activations are handed to the package in its own layout, and the SAE that is trained here as a SAELens
folder. The package reads its own texts, labels and splits, encodes by sae-lens, ranks, fits. Prints the
largest difference per method.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

from actprobe.sae import save_saelens

SITE, SAE = "minilm/resid_post.4.last", "minilm-1k"
QUICKSTART = [
    "5_hist_fig_ismale", "24_headline_isiran", "36_sciq_tf", "41_truthqa_tf", "92_glue_sst2",
    "95_toxic_is", "107_hate_offensive", "149_twt_emotion_happiness",
]  # fmt: skip
OTHERS = [
    "50_deon_isvalid", "87_glue_cola", "96_spam_is", "106_hate_hate", "114_nyc_borough_Manhattan",
    "129_arith_mc_A",
]  # fmt: skip
SLOW_ON = ["24_headline_isiran", "41_truthqa_tf", "87_glue_cola", "95_toxic_is"]
METHODS = {  # of the package -> datasets
    **{m: [*QUICKSTART, *OTHERS] for m in ("logreg", "pca", "knn")},
    **dict.fromkeys(("xgboost", "mlp"), SLOW_ON),
}
LATENTS_OF = ["5_hist_fig_ismale", "87_glue_cola", "96_spam_is", "149_twt_emotion_happiness"]
KS = [1, 2, 4, 8, 16, 32, 64, 128]
METRICS = ["test_auc", "test_acc", "test_f1", "val_auc"]

PEER = """
import json, sys
from pathlib import Path
from sae_lens import SAE
from sae_probes.run_baselines import run_baseline_dataset_layer
from sae_probes.run_sae_evals import run_sae_eval

o = json.loads(sys.argv[1])
where = {"model_name": "minilm", "hook_name": "blocks.4.hook_resid_post",
         "model_cache_path": o["activations"], "results_path": o["results"]}
for method, datasets in o["methods"].items():
    for dataset in datasets:
        run_baseline_dataset_layer(numbered_dataset=dataset, method_name=method, **where)
sae = SAE.load_from_disk(o["sae"])
for dataset in o["latents_of"]:
    run_sae_eval(sae, dataset, reg_type="l1", setting="normal", device="cpu", ks=o["ks"], **where)
"""


def configured(folder: Path) -> Path:
    """The sentence encoder on all datasets, by the exact protocol, with one SAE."""
    config = yaml.safe_load(Path("config/examples/sentence-encoder.yaml").read_text())
    config["experiment"] = "parity"
    [datasets] = config["datasets"]
    datasets["names"] = [*QUICKSTART, *OTHERS]
    tokens = {"model": "minilm", "sites": ["resid_post.4"], "positions": ["tokens"]}
    config["activations"] = [
        {"model": "minilm", "sites": ["resid_post.4"], "positions": ["last"]},
        {**tokens, "datasets": SLOW_ON},
    ]
    config["saes"] = {SAE: config["saes"][SAE]}
    exact = {"protocol": "saeprobes-0.4.2"}
    config["probes"] = [
        *(
            {**exact, "sources": [SITE], "methods": [m], "datasets": on}
            for m, on in METHODS.items()
        ),
        {**exact, "sources": [SAE], "methods": ["ksparse_b"], "datasets": LATENTS_OF},
    ]
    path = folder / "parity.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def peer(python: str, folder: Path, config: Path) -> pd.DataFrame:
    """The package's rows."""
    kept = folder / "activations"
    actprobe = [sys.executable, "-m", "actprobe.cli"]
    command = ["export", "activations", "saeprobes", str(kept), "--source", SITE]
    subprocess.run([*actprobe, *command, "--configfile", str(config)], check=True)
    [trained] = Path("cache/saes").glob(f"{SAE}.*.h5")
    options = {
        "activations": str(kept / "last"),
        "results": str(folder / "peer"),
        "sae": str(save_saelens(trained, folder / "sae")),
        "methods": METHODS,
        "latents_of": LATENTS_OF,
        "ks": KS,
    }
    subprocess.run([python, "-c", PEER, json.dumps(options)], check=True)
    rows = [r for p in (folder / "peer").rglob("*.json") for r in json.loads(p.read_text())]
    return pd.DataFrame(rows).fillna({"method": "ksparse_b"})


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = configured(folder)
        subprocess.run(["snakemake", "--cores", "2", "--configfile", str(config)], check=True)
        ours = pd.read_parquet("results/parity/tables/probes.parquet")
        ours = ours.rename(columns={"val_score": "val_auc"})  # as the package calls it
        theirs = peer(sys.argv[1], folder, config)
    on = ["dataset", "method", "k"]
    both = ours.merge(theirs, on=on, suffixes=("", "_peer"))
    assert len(both) == len(theirs), f"{len(theirs) - len(both)} rows of the package have no match"
    print("| method | k | rows | " + " | ".join(f"largest {m} difference" for m in METRICS) + " |")
    print("|---" * (3 + len(METRICS)) + "|")
    for (method, k), rows in both.groupby(["method", "k"], dropna=False, sort=False):
        off = [(rows[m] - rows[f"{m}_peer"]).abs().max() for m in METRICS]
        at = "" if pd.isna(k) else int(k)
        print(f"| {method} | {at} | {len(rows)} | " + " | ".join(f"{x:.1e}" for x in off) + " |")


if __name__ == "__main__":
    main()
