"""Every stage has what makes its batches, and what must come first comes first."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

from actprobe.experiment import stages

FIRST = """
import sys
from actprobe.cache import jobs  # as workflow/scripts/stage.py
from actprobe.experiment import stages  # as workflow/scripts/stage.py
from actprobe.sae import kernel

def first():
    print("numpy" in sys.modules)

kernel.prefer_avx512 = first
stages.runner("{}")
print("numpy" in sys.modules)
"""


@pytest.mark.parametrize("stage", ["saes", "latents"])
def test_the_kernel_is_chosen_before_numpy_is_imported(stage):
    code = FIRST.format(stage)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("stage", stages.STAGES)
def test_a_batch_is_made_by_a_function_of_batch_config_and_threads(stage):
    assert list(inspect.signature(stages.runner(stage)).parameters) == [
        "batch",
        "config",
        "threads",
    ]


def test_texts_of_answers_are_made_in_a_way_of_their_own():
    assert stages.runner("texts", "answers") is not stages.runner("texts")


def test_the_rules_of_each_stage_are_in_one_file(root):
    found: dict[str, list[str]] = {s: [] for s in stages.STAGES}
    for file in sorted((root / "workflow" / "rules").glob("*.smk")):
        for names in re.findall(r"for batch in PLAN\.of\(([^)]*)\)", file.read_text()):
            for stage in re.findall(r'"(\w+)"', names):
                found[stage].append(file.name)
    assert {s: files for s, files in found.items() if len(files) != 1} == {}
