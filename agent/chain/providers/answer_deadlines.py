"""A deadline for the status and headers of an HTTP answer. The time-out of a socket limits each read
alone: a server that sends a byte now and then, or one 100 (Continue) after another, would hold its
caller for hours.
"""

from __future__ import annotations

import io
import socket
import time
from http.client import HTTPResponse
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection


class _DeadlineReader(io.RawIOBase):
    """A stream of a socket, whose reads wait no longer than `deadline_s` until that is None."""

    def __init__(self, stream: io.RawIOBase, sock: socket.socket, deadline_s: float) -> None:
        self._stream = stream
        self._sock = sock
        self.deadline_s: float | None = deadline_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.deadline_s is not None:
            left_s = self.deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the headers took too long")
            self._sock.settimeout(left_s)
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _PromptResponse(HTTPResponse):
    """An answer whose status and headers arrive within the time-out of its socket, all together."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._sock = sock

    def begin(self) -> None:
        timeout_s = self._sock.gettimeout()
        if timeout_s is None:
            super().begin()
            return
        reader = _DeadlineReader(self.fp.detach(), self._sock, time.monotonic() + timeout_s)
        self.fp = io.BufferedReader(reader)
        super().begin()
        reader.deadline_s = None
        self._sock.settimeout(timeout_s)


class _PromptConnection(HTTPConnection):
    response_class = _PromptResponse


class _PromptSecureConnection(HTTPSConnection):
    response_class = _PromptResponse


class _PromptPool(HTTPConnectionPool):
    ConnectionCls = _PromptConnection


class _PromptSecurePool(HTTPSConnectionPool):
    ConnectionCls = _PromptSecureConnection


_POOLS = {"http": _PromptPool, "https": _PromptSecurePool}


class PromptAdapter(HTTPAdapter):
    """Adapter of a session whose answers begin within the time-out; through a SOCKS proxy too each
    read is limited alone.
    """

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> ProxyManager:
        """Return the pools of connections through a proxy."""
        manager: ProxyManager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager
