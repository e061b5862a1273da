"""The example configs: what they name exists, and 50,000 files are planned in seconds."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import lora_tools as tools

from actprobe import config, lora
from actprobe.base import keys
from actprobe.lora import index, synthetic

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"


def _example(name: str, folder: Path) -> dict:
    """The resolved example with its data in `folder`."""
    raw = config.load_file(EXAMPLES / f"{name}.yaml")
    raw["cache_dir"] = str(folder / "cache")
    for entry in raw["loras"].values():
        entry["files"] = str(folder / entry["files"])
        entry["labels"] = str(folder / entry["labels"])
    return config.resolve(raw)


def test_the_small_example_runs_up_to_its_index(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "data" / "loras", per_class=4)
    cfg = _example("lora-small", tmp_path)
    made = tools.planned(cfg)
    stages = Counter(t.stage for t in made.targets.values())
    assert stages["lora_index"] == 1 and stages["lora_primitives"] == 5
    # 17 representations and norm_only on three subsets, two of them layer by layer, and the recipe,
    # by a tree, too; 3 + 3 of `style`.
    assert stages["probes"] == 17 * 3 + 2 + 2 + 3 + 3
    index.run(made.of("lora_index")[0], cfg, 1)
    found = index.Index.open(tools.path_of(made, "small"))
    assert (found.refused != "").sum() == 6, "the seventh is found when weights are read"


def test_50000_files_are_planned_and_one_more_touches_one_shard(tmp_path: Path) -> None:
    one = tools.write_lora(tmp_path / "one.safetensors")
    folder, rows = tmp_path / "data" / "lora-ws-50k", ["id,category_label,leaf_id"]
    folder.mkdir(parents=True)
    for i in range(50_000):
        os.link(one, folder / f"{i:05d}.safetensors")
        rows.append(f"{i:05d},{i % 10},{i // 5}")
    (tmp_path / "data" / "lora-ws-50k.csv").write_text("\n".join(rows))
    cfg = _example("lora-50k", tmp_path)
    plan = tools.planned(cfg)
    before = set(plan.paths("lora_primitives"))
    assert len(plan.paths("lora_index")) == 1 and 5 * 50 <= len(before) <= 5 * 100
    jobs = plan.of("lora_primitives")
    assert len(jobs) == 16 and max(b.cost for b in jobs) < 1.5 * min(b.cost for b in jobs)
    tools.write_lora(folder / "new.safetensors")
    again = lora.collections(cfg, keys.DigestMemo(cfg["cache_dir"]))
    after = {t.path for t in lora.targets(again)}
    new = {p for p in after - before if "/lora_primitives/" in p}
    assert len(new) == 5, "five families of one shard"
