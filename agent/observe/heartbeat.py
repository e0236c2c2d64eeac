"""A sign of life to a dead man's switch elsewhere: one request after each healthy look, which harms nothing when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal
from urllib.parse import urlsplit

import requests

Method = Literal["GET", "POST"]
TIMEOUT_S = 5.0


class Heartbeat:
    """Sends from a thread of its own, one at a time: who listens slowly holds up no look. The URL is a secret (T18)."""

    def __init__(self, url: str, method: Method, failed: Callable[[str], None], timeout_s: float = TIMEOUT_S) -> None:
        self._url = url
        self._host = _host(url)
        self._method = method
        self._failed = failed
        self._timeout_s = timeout_s
        self._busy = threading.Lock()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return "Heartbeat(hidden)"

    def beat(self) -> None:
        """Sends one, unless the last one is still on its way: that one is told as failed."""
        if not self._busy.acquire(blocking=False):
            self._failed("the last heartbeat is still on its way")
            return
        self._thread = threading.Thread(target=self._send, name="trimtab heartbeat", daemon=True)
        self._thread.start()

    def settle(self, within_s: float = TIMEOUT_S) -> None:
        """Waits until the last one has left or failed."""
        if self._thread is not None:
            self._thread.join(within_s)

    def _send(self) -> None:
        try:
            why = self._asked()
        finally:
            self._busy.release()
        if why:
            self._failed(why)

    def _asked(self) -> str:
        """Why it failed, without the URL and without what anybody answered; empty where it did not."""
        try:
            with requests.request(self._method, self._url, timeout=self._timeout_s, allow_redirects=False, stream=True) as answer:
                code = answer.status_code
        except requests.RequestException as error:
            return f"{self._host}: {type(error).__name__}"
        except Exception as error:  # urllib3 and idna raise their own on odd addresses; a heartbeat ends no run
            return type(error).__name__
        return "" if code < 300 else f"{self._host}: HTTP {code}"


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "no host"
    except ValueError:
        return "no host"
