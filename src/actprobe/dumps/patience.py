"""HTTP connections that give up on a peer that sends next to nothing.

A socket's timeout counts from byte to byte: a server that sends one a second, or its headers letter by
letter, is never late. Here the time spent waiting is added up over whole responses, and compared
with what arrived in it.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter


class TooSlow(TimeoutError):
    """Less arrived than the least speed."""


class _Reader(io.RawIOBase):
    """Bytes of a socket. In every `stall` seconds of waiting at least `least` bytes a second must
    arrive."""

    def __init__(self, sock: socket.socket, stall: float, least: float):
        self._sock, self._stall, self._least = sock, stall, least
        self._held = sock.makefile("rb", buffering=0)  # a socket stays open as long as this does
        self._waited, self._got = 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while True:
            begun = time.monotonic()
            try:
                self._sock.settimeout(max(self._stall - self._waited, 1e-3))
                n = self._sock.recv_into(into)
            except TimeoutError:
                self._waited += time.monotonic() - begun
                self._judge()
                continue
            self._waited += time.monotonic() - begun
            self._got += n
            if n:  # the end of a response is judged by its length
                self._judge()
            return n

    def _judge(self) -> None:
        if self._waited < self._stall:
            return
        if self._got < max(1.0, self._least * self._waited):
            speed = f"fewer than {self._least:,.0f} bytes a second" if self._got else "nothing"
            raise TooSlow(f"{speed} for {self._waited:.0f} s")
        self._waited, self._got = 0.0, 0

    def close(self) -> None:
        self._held.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response whose head and body come through a `_Reader`."""

    stall, least = 30.0, 0.0

    def __init__(self, sock: Any, *args: Any, **kwargs: Any):
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Reader(sock, self.stall, self.least))


class PatientAdapter(HTTPAdapter):
    """Connections that wait at most `stall` seconds for a byte, and for `least` bytes a second."""

    def __init__(self, stall: float, least: float):
        response = type("_Response", (_Response,), {"stall": stall, "least": least})
        self._pools: dict[str, Any] = {}
        for scheme, pool in (
            ("http", urllib3.HTTPConnectionPool),
            ("https", urllib3.HTTPSConnectionPool),
        ):
            kind = type("_Connection", (pool.ConnectionCls,), {"response_class": response})
            self._pools[scheme] = type("_Pool", (pool,), {"ConnectionCls": kind})
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager
