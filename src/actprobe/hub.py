"""The Hugging Face hub: what its client raises."""

from __future__ import annotations


def errors() -> tuple[type[Exception], ...]:
    """Errors for what cannot be had from the hub, now or at all.

    Its own are of two kinds, OSError and the errors of its HTTP library, which raises others for a
    connection that is refused, breaks or takes too long. An offline run may say ValueError.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (*HfHubHTTPError.__bases__, ValueError)
