"""One range of one file over HTTP: strict about what may count as its bytes.

Signed URLs are credentials: no error raised here holds one, and where a server leads on to another
address it gets none of ours.
"""

from __future__ import annotations

import http.cookiejar
import ipaddress
import re
from collections.abc import Iterator
from types import TracebackType
from urllib.parse import urljoin, urlsplit

import requests

from actprobe.dumps.dropped import BROKEN, Dropped, dropped
from actprobe.dumps.patience import PatientAdapter
from actprobe.dumps.secrets import keep_out_of_logs
from actprobe.files.hub.asking import retry_after

_READ = 1 << 18
_BUSY = {408, 409, 425, 429}  # and all from 500
# Google Cloud Storage and S3 say so with HTTP 400.
_EXPIRED = re.compile(rb"<Code>(ExpiredToken|ExpiredRequest)</Code>")
_ERROR = 4000  # bytes read of the body of an error
_LONGEST_WAIT = 120.0  # seconds that a server's Retry-After may ask for
_REDIRECTS = 5


class Expired(Exception):
    """The signed URL is not valid any more."""


class Refused(Exception):
    """This file cannot be had; the message says why."""


class Changed(Exception):
    """The file there is another one than that whose bytes came before."""


class NoRanges(Exception):
    """The server sends the whole file whatever range is asked for."""


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from looking the storage host up in netrc."""
    return request


def new_session(connect: float = 10.0, stall: float = 30.0, least: float = 1000.0) -> Session:
    """Keep-alive connections for one worker; proxies come from the environment.

    connect: seconds to wait for a connection; stall, least: see `PatientAdapter`.
    """
    keep_out_of_logs()
    session = Session()
    session.auth = _no_auth
    session.headers["Accept-Encoding"] = "identity"
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    session.patience = (connect, stall)
    for scheme in ("http://", "https://"):
        session.mount(scheme, PatientAdapter(stall, least))
    return session


class Session(requests.Session):
    """A session with its timeouts (seconds to connect, seconds for a byte)."""

    patience: tuple[float, float]


class Body:
    """Bytes [start, stop) of a file of `size` bytes, in the pieces in which they arrive.

    `version` is what the server calls this content (its ETag, or when it was last changed), None
    when it says nothing. Close it, or use it in a `with`.
    """

    def __init__(self, response: requests.Response, start: int, stop: int, skip: int):
        self._response, self._left, self._skip = response, stop - start, skip
        self.version = version_of(response)

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        self._response.close()

    def __iter__(self) -> Iterator[bytes]:
        """Every piece is part of the range. Raises Dropped when it ends early."""
        raw, left = self._response.raw, self._left + self._skip
        while left:
            try:
                piece = raw.read1(min(left, _READ), decode_content=False)
            except BROKEN as e:
                raise dropped(e, "") from None
            if not piece:
                raise Dropped(f"the body ended {left} bytes early")
            left -= len(piece)
            if self._skip:
                cut = min(self._skip, len(piece))
                self._skip, piece = self._skip - cut, piece[cut:]
            if piece:
                yield piece
        if "Content-Length" in self._response.headers:  # else more may follow on this connection
            raw.release_conn()


def open_range(
    session: Session,
    url: str,
    start: int,
    stop: int,
    size: int,
    version: str | None = None,
    whole: bool = False,
) -> Body:
    """Bytes [start, stop) of a file of `size` bytes.

    version: what the content must still be, for files that have no digest; whole: the server ignores
    ranges, so that the bytes before `start` come too and are thrown away. Raises Dropped, Expired,
    Refused, Changed or NoRanges.
    """
    headers = {"Range": f"bytes={start}-{stop - 1}"}
    if version and version.startswith('"'):  # a strong ETag
        headers["If-Match"] = version
    response = get(session, url, headers)
    try:
        skip = _check(response, start, stop, size, whole)
        if version and version_of(response) != version:
            raise Changed("the file there was changed while it was fetched")
        return Body(response, start, stop, skip)
    except BaseException:
        response.close()
        raise


def get(session: Session, url: str, headers: dict[str, str]) -> requests.Response:
    """An answer other than a redirect. These are followed here, with nothing of ours but `headers`,
    to https or this machine alone. Raises Dropped or Refused."""
    for _ in range(_REDIRECTS + 1):
        host = _host(url)
        try:
            response = session.get(
                url, headers=headers, stream=True, timeout=session.patience, allow_redirects=False
            )
        except BROKEN as e:
            raise dropped(e, host) from None
        if response.status_code not in (301, 302, 303, 307, 308):
            return response
        location = response.headers.get("Location", "")
        response.close()
        try:
            url = urljoin(url, location)
        except ValueError:
            location = ""
        if not location or not _may_follow(url):
            to = f"{url.partition(':')[0]}://{_host(url)}" if location else "nowhere"
            raise Refused(f"{host} redirects to {to}; expected https")
    raise Refused(f"more than {_REDIRECTS} redirects, the last one from {host}")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "(no host)"
    except ValueError:
        return "(no host)"


def _may_follow(url: str) -> bool:
    """True for https, and for http to this machine."""
    scheme, host = url.partition(":")[0].lower(), _host(url)
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return scheme == "https" or (scheme == "http" and loopback)


def _check(response: requests.Response, start: int, stop: int, size: int, whole: bool) -> int:
    """Bytes of the body to throw away before the range begins."""
    status, head = response.status_code, response.headers
    if status in (200, 206):
        packed = head.get("Content-Encoding", "identity").strip().lower()
        if packed not in ("identity", ""):
            raise Dropped(f"the bytes come packed (Content-Encoding: {packed[:40]})")
    if status == 206:
        expected = f"bytes {start}-{stop - 1}/{size}"
        if head.get("Content-Range") != expected:
            raise Dropped(f"Content-Range is {head.get('Content-Range')!r}, expected {expected!r}")
        if head.get("Content-Length", str(stop - start)) != str(stop - start):
            raise Dropped(f"{head['Content-Length']} bytes announced, expected {stop - start}")
    elif status == 200:
        if head.get("Content-Length") != str(size):
            raise Dropped(f"{head.get('Content-Length')} bytes announced, expected {size}")
        if not whole and (start, stop) != (0, size):
            raise NoRanges
        return start
    elif status in (401, 403):
        raise Expired(f"HTTP {status}")
    elif status == 400 and _EXPIRED.search(_beginning(response)):
        raise Expired("HTTP 400, expired")
    elif status == 412:
        raise Changed("the file there was changed while it was fetched")
    elif status == 416:
        raise Refused(f"HTTP 416: the file there has fewer than the {size:,} bytes of the lock")
    elif status in _BUSY or status >= 500:
        raise Dropped(f"HTTP {status}", _pause(head.get("Retry-After")))
    else:
        raise Refused(f"HTTP {status}")
    return 0


def version_of(response: requests.Response) -> str | None:
    """What a server calls the content it sends: its ETag, else its date."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified")


def read_whole(session: Session, url: str, most: int) -> bytes:
    """A small file, unpacked if need be. Raises Dropped, Expired or Refused, also for more than
    `most` bytes."""
    response = get(session, url, {})
    with response:
        if response.status_code != 200:
            _check(response, 0, 0, -1, False)
            raise Refused(f"HTTP {response.status_code}")
        content = bytearray()
        try:
            for piece in response.iter_content(_READ):
                content += piece
                if len(content) > most:
                    raise Refused(f"more than {most:,} bytes")
        except BROKEN as e:
            raise dropped(e, "") from None
        announced = response.headers.get("Content-Length", "")
        if "Content-Encoding" not in response.headers and announced not in ("", str(len(content))):
            raise Dropped(f"the body ended after {len(content)} of {announced} bytes")
        return bytes(content)


def _beginning(response: requests.Response) -> bytes:
    """The first bytes of an error's body."""
    try:
        found: bytes = response.raw.read(_ERROR, decode_content=False)
        return found
    except BROKEN as e:
        raise dropped(e, "") from None


def _pause(value: str | None) -> float | None:
    """Seconds of a Retry-After header, not more than anybody waits for."""
    seconds = retry_after(value)
    return None if seconds is None else min(seconds, _LONGEST_WAIT)
