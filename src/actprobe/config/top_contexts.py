"""`top_contexts`: which latents to look at."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from actprobe.config.base import Section
from actprobe.config.kinds import KIND, AsList, AsWhole, Natural, Once, Patterns, Positive

Latents = Annotated[AsWhole[Positive] | AsList[Annotated[Once[Natural], Field(min_length=1)]], KIND]


class TopContext(Section):
    """top_context"""

    sources: Patterns
    """Names or glob patterns of what has tokens for rows: DUMP.SITE, MODEL/SITE.tokens, or an SAE
    on such activations.
    """
    datasets: Patterns = ["*"]
    """Names or glob patterns of datasets."""
    latents: Latents = 100
    """Latents by number, or how many of those with the largest sums."""
    k: Positive = 10
    """Contexts per latent."""
    window: Natural = 16
    """Tokens shown on either side of the strongest one."""
    tokenizer: str | None = None
    """A tokenizer.json that gives token ids their text; not needed for dumps whose tokens are
    strings.
    """


TopContexts = Annotated[
    list[TopContext],
    Field(
        description=(
            "Which latents to look at: per latent the examples that excite it most, with the "
            "tokens around the peak, as a table in the cache and a page in the results."
        )
    ),
]
