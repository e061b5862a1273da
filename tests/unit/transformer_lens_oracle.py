"""What HookedTransformer reads, and sae-lens encodes: `python transformer_lens_oracle.py FOLDER`.

FOLDER/texts.json holds texts, FOLDER/{model}/model a model, FOLDER/sae an SAE of its width. Writes
FOLDER/{model}/read.json: the token ids of every text by HookedTransformer's default, with
prepend_bos true and false, and of its tokenizer called directly, as sae-probes does; and
FOLDER/{model}/codes.npy: the SAE's codes of the last position of blocks.1.hook_resid_post, by
default and with a BOS, float32 [2, texts, latents].
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from sae_lens import SAE
from transformer_lens import HookedTransformer, loading_from_pretrained

loading_from_pretrained.get_official_model_name = lambda name: name  # a folder is no known name
HOOK = "blocks.1.hook_resid_post"


@torch.no_grad()
def read(folder: Path, texts: list[str], sae: SAE) -> None:
    source = str(folder / "model")
    model = HookedTransformer.from_pretrained_no_processing(
        source,
        hf_model=transformers.AutoModelForCausalLM.from_pretrained(source),
        tokenizer=transformers.AutoTokenizer.from_pretrained(source),
    )
    ids = {
        "default": [model.to_tokens(t)[0].tolist() for t in texts],
        "true": [model.to_tokens(t, prepend_bos=True)[0].tolist() for t in texts],
        "false": [model.to_tokens(t, prepend_bos=False)[0].tolist() for t in texts],
        "tokenizer": [model.tokenizer(t)["input_ids"] for t in texts],
    }
    (folder / "read.json").write_text(json.dumps(ids))
    codes = []
    for how in ("default", "true"):
        rows = [torch.tensor([row]) for row in ids[how]]
        last = [model.run_with_cache(row, names_filter=HOOK)[1][HOOK][0, -1] for row in rows]
        codes.append(sae.encode(torch.stack(last)).numpy())
    np.save(folder / "codes.npy", np.stack(codes))


def main() -> None:
    root = Path(sys.argv[1])
    texts, sae = json.loads((root / "texts.json").read_text()), SAE.load_from_disk(root / "sae")
    for folder in sorted(p.parent for p in root.glob("*/model")):
        read(folder, texts, sae)


if __name__ == "__main__":
    main()
