"""Questions to the service: bounded, said when they take long, without secrets in their errors."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from actprobe.base.errors import ActprobeError, Unreachable
from actprobe.dumps.connection import Expired, Refused
from actprobe.dumps.dropped import Dropped
from actprobe.dumps.secrets import redact

log = logging.getLogger(__name__)

T = TypeVar("T")
TIMEOUT = 60.0  # seconds for one question; the client asks again by itself as long
_QUIET = 10.0  # seconds after which a question without an answer is told
_BACKOFF, _LONGEST = 0.5, 10.0  # seconds


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Around a question to the client: says so when there is no answer, and turns any error into
    Unreachable or ActprobeError, without URLs and keys."""
    said = threading.Timer(
        _QUIET,
        log.warning,
        (
            "Weights & Biases, %s: no answer for %.0f s; it is asked again, for %.0f s in all",
            what, _QUIET, TIMEOUT,
        ),
    )  # fmt: skip
    said.daemon = True
    said.start()
    try:
        yield
    except ActprobeError:
        raise
    except Exception as e:  # the client raises its own, requests' and pydantic's errors
        kind = Unreachable if _may_pass(e) else ActprobeError
        raise kind(f"Weights & Biases, {what}: {_words(e)}") from None
    finally:
        said.cancel()


def _may_pass(error: Exception) -> bool:
    """True for a service that gives no answer, or a bad one, now."""
    if not hasattr(error, "response"):
        return isinstance(error, (OSError, TimeoutError))
    status = getattr(error.response, "http_status", 0)
    return error.response is None or status == 429 or status >= 500


def _words(error: Exception) -> str:
    if getattr(error, "response", "") is None:  # the client's service gave up waiting
        return f"no answer within {TIMEOUT:.0f} s ({type(error).__name__})"
    text = re.sub(r"\w+://\S+", "(URL)", redact(" ".join(str(error).split())))
    return f"{type(error).__name__}: {text[:300]}"


def patiently(what: str, ask: Callable[[], T]) -> T:
    """The answer to a question that may be asked again, for `TIMEOUT` seconds in all.

    Every further try is said. Raises Unreachable when they are over, ActprobeError for a refusal.
    """
    begun, tries = time.monotonic(), 0
    while True:
        try:
            return ask()
        except Refused as e:
            raise ActprobeError(f"Weights & Biases, {what}: {e}") from None
        except (Dropped, Expired) as e:
            wait: Any = getattr(e, "wait", None)
            wait = min(_LONGEST, _BACKOFF * 2**tries) if wait is None else wait
            tries += 1
            if time.monotonic() - begun + wait > TIMEOUT:
                raise Unreachable(
                    f"Weights & Biases, {what}: {e}; gave up after {tries} tries in "
                    f"{time.monotonic() - begun:.0f} s"
                ) from None
            log.warning(
                "Weights & Biases, %s: %s, trying again for up to %.0f s",
                what, e, TIMEOUT - (time.monotonic() - begun),
            )  # fmt: skip
            time.sleep(wait)
