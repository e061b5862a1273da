"""`wandb`: a run at Weights & Biases that follows the workflow."""

from __future__ import annotations

from typing import Literal

from actprobe.config.base import Section
from actprobe.config.kinds import Text


class Wandb(Section):
    """Where `actprobe export --wandb` sends results, and whether a workflow run is followed there.
    The API key stands in WANDB_API_KEY or netrc and nowhere else.
    """

    enabled: bool = False
    """Log the progress of a workflow run, and the scores as they arrive, to a run."""
    entity: str | None = None
    """User or team; null for the default of the login."""
    project: Text = "actprobe"
    """Project that runs go to."""
    mode: Literal["online", "offline"] = "online"
    """`online`, or `offline`: the run is kept in `{results_dir}/{experiment}/wandb` and can be sent
    later with `wandb sync`.
    """
