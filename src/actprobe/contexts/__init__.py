"""Top contexts: the tokens that excite a latent or a dimension, as tables and pages.

Light to import; jobs run `run.run` and `pages.write_page`.
"""

from __future__ import annotations

from actprobe.contexts.targets import VERSION, page, targets

__all__ = ["VERSION", "page", "targets"]
