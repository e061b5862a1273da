"""The bytes of one file over HTTP: strict about what may count as them.

The hub redirects large files to signed addresses of its storage, which are credentials: no error
raised here holds one, and the client sends its token to the hub alone.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

from actprobe.files.hub import asking, layout
from actprobe.files.hub.asking import Dropped, within
from actprobe.files.hub.layout import Entry
from actprobe.files.hub.names import of_client

STALL = 20.0  # seconds without a byte before a connection is given up


def content(repo: str, commit: str, name: str, entry: Entry) -> bytes:
    """The bytes of a small file, their digest checked."""
    with opened(repo, commit, name, 0) as response:
        check(response, 0, entry.size)
        found = b"".join(response.iter_raw())
    if _digest(entry, found) != entry.digest:
        raise ValueError(f"it sends other bytes than it lists for {name}")
    return found


def _digest(entry: Entry, found: bytes) -> str:
    return hashlib.sha256(found).hexdigest() if len(entry.digest) == 64 else layout.git_id(found)


def new_hash(entry: Entry) -> Any:
    """A fresh hash of the kind that names a file."""
    if len(entry.digest) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % entry.size)


@contextlib.contextmanager
def opened(repo: str, commit: str, name: str, at: int) -> Iterator[Any]:
    """The response with a file's bytes from `at` on. Raises Dropped, or an error of the client."""
    import httpx2
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    def question() -> Any:
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if at:
            headers["Range"] = f"bytes={at}-"
        called, kind = of_client(repo)
        session, url = get_session(), hf_hub_url(called, name, repo_type=kind, revision=commit)
        request = session.build_request("GET", url, headers=headers, timeout=httpx2.Timeout(STALL))
        response = session.send(request, stream=True)
        try:
            away = response.url.host != request.url.host
            if away and response.status_code in (400, 401, 403, 404):
                status = response.status_code  # its signature may have expired
                raise Dropped(f"the storage refuses the address that the hub gave (HTTP {status})")
            hf_raise_for_status(response)
        except BaseException:
            response.close()
            raise
        return response

    response = within(2 * asking.WHOLE, question)
    try:
        yield response
    finally:
        response.close()


def check(response: Any, at: int, size: int) -> int:
    """Where the bytes of an answer belong: at `at`, or at 0 where the server sends the whole file."""
    head = response.headers
    if head.get("Content-Encoding", "identity") != "identity":
        raise Dropped(f"the server encodes the bytes ({head['Content-Encoding']})")
    if response.status_code == 206:
        expected = f"bytes {at}-{size - 1}/{size}"
        if head.get("Content-Range") != expected:
            raise Dropped(f"Content-Range is {head.get('Content-Range')!r}, expected {expected!r}")
        return at
    if head.get("Content-Length", str(size)) != str(size):
        raise Dropped(f"{head['Content-Length']} bytes announced, {size} listed")
    return 0
