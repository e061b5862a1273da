"""One range of one file over HTTP: strict about what may count as its bytes.

Signed URLs are credentials. No error raised here holds one.
"""

from __future__ import annotations

import email.utils
import http.client
import math
import re
import time
from collections.abc import Iterator

import requests
import urllib3

from actprobe.wandb.urls import keep_out_of_logs

_READ = 1 << 18
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
# Google Cloud Storage and S3 say so with HTTP 400.
_EXPIRED = re.compile(rb"<Code>(ExpiredToken|ExpiredRequest)</Code>")
_ERROR = 4000  # bytes read of the body of an error
_LONGEST_WAIT = 120.0  # seconds that a server's Retry-After may ask for


class Dropped(Exception):
    """The range did not arrive, trying again makes sense; `wait`: seconds the server asked for."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class Expired(Exception):
    """The signed URL is not valid any more."""


class Refused(Exception):
    """This file cannot be had; the message says why."""


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from looking the storage host up in netrc."""
    return request


def new_session() -> requests.Session:
    """A keep-alive connection for one worker; proxies come from the environment."""
    keep_out_of_logs()
    session = requests.Session()
    session.auth = _no_auth
    session.headers["Accept-Encoding"] = "identity"
    return session


def stream(
    session: requests.Session,
    url: str,
    start: int,
    stop: int,
    size: int,
    connect: float,
    stall: float,
) -> Iterator[bytes]:
    """Bytes [start, stop) of a file of `size` bytes, in the pieces in which they arrive.

    connect, stall: seconds to wait for a connection, and for any next byte. Raises Dropped,
    Expired or Refused; before that, every piece yielded was part of the range.
    """
    try:
        response = session.get(
            url,
            headers={"Range": f"bytes={start}-{stop - 1}"},
            stream=True,
            timeout=(connect, stall),
        )
    except requests.RequestException as e:
        raise Dropped(type(e).__name__) from None
    try:
        _check(response, start, stop, size)
        left = stop - start
        while left:
            try:
                piece = response.raw.read1(min(left, _READ), decode_content=False)
            except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as e:
                raise Dropped(type(e).__name__) from None
            if not piece:
                raise Dropped(f"the body ended {left} bytes early")
            left -= len(piece)
            yield piece
        response.raw.release_conn()
    finally:
        response.close()


def _check(response: requests.Response, start: int, stop: int, size: int) -> None:
    status, head = response.status_code, response.headers
    if status == 206:
        expected = f"bytes {start}-{stop - 1}/{size}"
        if head.get("Content-Range") != expected:
            raise Dropped(f"Content-Range is {head.get('Content-Range')!r}, expected {expected!r}")
        if head.get("Content-Length", str(stop - start)) != str(stop - start):
            raise Dropped(f"{head['Content-Length']} bytes announced, expected {stop - start}")
    elif status == 200:
        if (start, stop) != (0, size):
            raise Dropped("the server ignores Range: HTTP 200, expected 206")
        if head.get("Content-Length") != str(size):
            raise Dropped(f"{head.get('Content-Length')} bytes announced, expected {size}")
    elif status in (401, 403):
        raise Expired(f"HTTP {status}")
    elif status == 400 and _EXPIRED.search(_beginning(response)):
        raise Expired("HTTP 400, expired")
    elif status in _BUSY:
        raise Dropped(f"HTTP {status}", _retry_after(head.get("Retry-After")))
    else:
        raise Refused(f"HTTP {status}")


def _beginning(response: requests.Response) -> bytes:
    """The first bytes of an error's body."""
    try:
        return response.raw.read(_ERROR, decode_content=False)
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as e:
        raise Dropped(type(e).__name__) from None


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    if not math.isfinite(seconds):
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT)
