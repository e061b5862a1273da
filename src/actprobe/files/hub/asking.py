"""Asking the hub: every question has a time limit, and every failure a cause in words."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, Queue
from typing import NamedTuple, TypeVar

from actprobe.base.errors import ActprobeError, ConfigError, Unreachable

log = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER = 10.0  # seconds for any next byte of an answer
WHOLE = 20.0  # seconds for a whole answer, however its bytes drip in
PLAN = 60.0  # seconds that all questions of one plan may take
LONGEST_WAIT = 120.0  # seconds that a job waits when the hub asks it to
_SHORT_WAIT = 5.0  # the same for a plan


class Late(Exception):
    """No answer within the time limit."""


class Dropped(Exception):
    """Bytes did not arrive, trying again makes sense; `wait`: seconds that the hub asked for."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


class Refused(ConfigError):
    """The hub does not give something, and waiting will not change that."""


class NotThere(Refused):
    """The repository is there, but not this revision or file."""


class Cause(NamedTuple):
    """Why something cannot be had, in words.

    final: the error to raise where waiting does not mend it; wait: seconds after which to try
    again, None where that is no use; everywhere: any other question would end the same way.
    """

    text: str
    final: type[Refused] | None = None
    wait: float | None = None
    everywhere: bool = False


def keep_out_of_logs() -> None:
    """The HTTP library writes every address that it asks for, signatures included, at INFO, and
    the hub's client warns with them; what there is to say is said here."""
    from huggingface_hub.utils import logging as client

    client.set_verbosity_error()
    for name in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def within(seconds: float, question: Callable[[], T]) -> T:
    """The answer of a question, which runs in a thread of its own. Raises Late, or its error.

    The HTTP library limits the time between two bytes; a service that sends one a second would
    never be late. A thread that is given up ends with its connection or the process.
    """
    box: Queue[tuple[T | None, BaseException | None]] = Queue(1)

    def run() -> None:
        try:
            box.put((question(), None))
        except BaseException as e:
            box.put((None, e))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = box.get(timeout=seconds)
    except Empty:
        raise Late(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def offline() -> str | None:
    """Why the hub must not be asked, if it must not."""
    from huggingface_hub import constants

    return "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else None


def cause(error: BaseException, repo: str, limit: float | None = None) -> Cause:
    """What an error of the hub's client means, without addresses, which may be signed.

    limit: seconds that were given to any next byte, where these are not `ANSWER`.
    """
    import httpx2
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    hub = constants.ENDPOINT
    if isinstance(error, OfflineModeIsEnabled):
        return Cause("HF_HUB_OFFLINE is set", everywhere=True)
    if isinstance(error, HfHubHTTPError):
        code = error.response.headers.get("X-Error-Code")
        retry = _wait_asked_for(error.response.headers)
        return _status(error.response.status_code, code, retry, repo, get_token() is not None)
    if isinstance(error, Dropped):
        return Cause(str(error), wait=error.wait or 1.0)
    if isinstance(error, Late):
        return Cause(f"{hub} gave {error}", everywhere=True)
    if isinstance(error, httpx2.TimeoutException):
        return Cause(f"{hub} gave no answer within {limit or ANSWER:.0f} s", everywhere=True)
    if isinstance(error, (httpx2.ReadError, httpx2.RemoteProtocolError)):
        return Cause(f"{hub} broke the connection ({_kind(error)})", wait=1.0)
    if isinstance(error, (httpx2.HTTPError, OSError)):
        return Cause(f"{hub} cannot be reached ({_kind(error)})", wait=1.0, everywhere=True)
    if isinstance(error, (ValueError, KeyError, TypeError, AttributeError)):
        return Cause(f"{hub} answers, but not as a hub ({_kind(error)})", everywhere=True)
    return Cause(_kind(error))


def _kind(error: BaseException) -> str:
    """What a connection's error says where it holds no address and no header."""
    text, name = " ".join(str(error).split()), type(error).__name__
    return (
        name if not text or re.search(r"://|bearer|hf_", text, re.IGNORECASE) else f"{name}: {text}"
    )


def _status(status: int, code: str | None, retry: float | None, repo: str, token: bool) -> Cause:
    from huggingface_hub import constants

    page = f"{constants.ENDPOINT}/{repo}"
    login = "with the account of your token" if token else "log in (hf auth login, or HF_TOKEN) and"
    if code == "GatedRepo":
        return Cause(
            f"it is gated (HTTP {status}): {login} accept its conditions at {page}",
            final=Refused,
        )
    if code == "RevisionNotFound":
        return Cause("it has no such revision", final=NotThere)
    if code == "EntryNotFound":
        return Cause("it has no such file", final=NotThere)
    if code == "RepoNotFound" or status == 404:
        access = "your token has no access" if token else "you are not logged in (hf auth login)"
        return Cause(f"there is no such repository, or it is private and {access}", final=Refused)
    if status in (401, 403):
        said = "does not accept your token" if token else "asks for a login (hf auth login)"
        return Cause(f"the hub {said} (HTTP {status})", final=Refused)
    if status == 429:
        asks = f"; it asks to wait {retry:.0f} s" if retry is not None else ""
        return Cause(f"too many requests (HTTP 429){asks}", wait=retry or 1.0, everywhere=True)
    if status == 408 or status >= 500:
        return Cause(f"the hub has trouble (HTTP {status})", wait=retry or 1.0)
    return Cause(f"the hub answers HTTP {status}", final=Refused)


def _wait_asked_for(headers: Mapping[str, str]) -> float | None:
    """Seconds that the hub asks to wait, by its own header for limits or the usual one."""
    from huggingface_hub.utils import parse_ratelimit_headers

    limits = parse_ratelimit_headers(headers)
    if limits is not None and limits.remaining == 0:
        return float(limits.reset_in_seconds)
    return retry_after(headers.get("Retry-After"))


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or a date (RFC 9110, 10.2.3)."""
    import email.utils
    import math

    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


_found_down: dict[str, tuple[float, str]] = {}  # endpoint -> when and how it was found
_LATELY = 30.0  # seconds


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _lately_down() -> str | None:
    """How the hub was found by another plan of this process: one is made again where parts of an
    earlier run were taken over."""
    if not _found_down:
        return None
    when, text = _found_down.get(_endpoint(), (0.0, ""))
    return text if time.monotonic() - when < _LATELY and text else None


class Line:
    """The questions of one plan, or of one job.

    A plan asks twice at most, and no more once the hub was found silent or out of reach: its time
    is bounded. A job (`patient`) asks five times and waits as long as the hub says.
    """

    def __init__(self, patient: bool) -> None:
        self._patient = patient
        self._left = PLAN
        self._down = None if patient else _lately_down()

    def ask(self, what: str, repo: str, question: Callable[[], T]) -> T:
        """The answer. Raises Refused for what waiting does not mend, else Unreachable.

        what: of which file or commit, for the message.
        """
        self._down = self._down or offline()
        if self._down is not None:
            raise Unreachable(f"{what}: {self._down}")
        keep_out_of_logs()
        tries = 5 if self._patient else 2
        for n in range(tries):
            begun = time.monotonic()
            try:
                return within(WHOLE if self._patient else min(WHOLE, self._left), question)
            except ActprobeError:
                raise
            except Exception as e:
                found = cause(e, repo)
            finally:
                self._spend(time.monotonic() - begun)
            if found.final:
                raise found.final(f"{what}: {found.text}")
            if self._down is not None:
                raise Unreachable(f"{what}: {self._down}")
            wait = self._wait(found, n)
            if wait is None or n + 1 == tries:
                break
            log.info("%s: %s; asking again in %.0f s", what, found.text, wait)
            time.sleep(wait)
            self._spend(wait)
        if found.everywhere and not self._patient:
            self._down = found.text
            _found_down[_endpoint()] = (time.monotonic(), found.text)
        raise Unreachable(f"{what}: {found.text}")

    def _spend(self, seconds: float) -> None:
        self._left -= seconds
        if not self._patient and self._left <= 0:
            self._down = self._down or f"its answers took more than {PLAN:.0f} s"

    def _wait(self, found: Cause, n: int) -> float | None:
        """Seconds before the next try; None where it is no use to wait."""
        if self._patient:
            wait = max(found.wait or 0.0, 2.0**n)
            return wait if wait <= LONGEST_WAIT else None
        return found.wait if found.wait is not None and found.wait <= _SHORT_WAIT else None
