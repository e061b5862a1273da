"""Models with random weights, as a control: what an architecture does before it has learnt anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from actprobe.models.view import View


def initialise(where: View, options: Mapping[str, Any], seed: int) -> nn.Module:
    """A model as transformers initialises it, on the CPU.

    Whole and in float32, then rounded: the layers that a job reads and its precision change no weight.
    options: arguments of `from_config`.
    """
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = AutoModel.from_config(
            trust_remote_code=where.trusted, **{**options, "dtype": torch.float32}
        )
    return module.to(options["dtype"])
