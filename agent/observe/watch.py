"""What watches a run from outside: heartbeat, watchdog, and systemd notifications."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

import requests

from agent.units import format_duration

Method = Literal["GET", "POST"]
TIMEOUT_S = 5.0


class Heartbeat:
    """Sends heartbeats from a thread, one at a time, so that a slow server delays no cycle. The URL
    is a secret (T18).
    """

    def __init__(
        self, url: str, method: Method, failed: Callable[[str], None], timeout_s: float = TIMEOUT_S
    ) -> None:
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
        """Send a heartbeat, or report a failure if the previous one is still being sent."""
        if not self._busy.acquire(blocking=False):
            self._failed("the previous heartbeat is still being sent")
            return
        self._thread = threading.Thread(target=self._send, name="trimtab heartbeat", daemon=True)
        self._thread.start()

    def settle(self, within_s: float = TIMEOUT_S) -> None:
        """Wait until the last heartbeat was sent or failed."""
        if self._thread is not None:
            self._thread.join(within_s)

    def _send(self) -> None:
        try:
            why = self._request()
        finally:
            self._busy.release()
        if why:
            self._failed(why)

    def _request(self) -> str:
        """Send the request. Return why it failed, without the URL and the server's answer; empty
        if it succeeded.
        """
        try:
            with requests.request(
                self._method, self._url, timeout=self._timeout_s, allow_redirects=False, stream=True
            ) as answer:
                code = answer.status_code
        except requests.RequestException as error:
            return f"{self._host}: {type(error).__name__}"
        except Exception as error:  # urllib3 and idna raise their own errors on odd addresses; a heartbeat must not end a run
            return type(error).__name__
        return "" if code < 300 else f"{self._host}: HTTP {code}"


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "no host"
    except ValueError:
        return "no host"


SENDING_STAGE = "before:send"
"""Stage that the executor reports just before it sends bytes; at its next stage they have been
sent.
"""
LONGEST_PERIOD_S = 5.0


class Watchdog:
    """Detects hangs: a silence longer than `bound_s`. `now` is a monotonic clock, in seconds.

    Every event of a step and each part of a wait ends a silence.
    """

    def __init__(
        self,
        bound_s: float,
        now: Callable[[], float] = time.monotonic,
        period_s: float | None = None,
    ) -> None:
        """Set the bounds; `period_s` is the longest interval between checks."""
        self._bound_s = bound_s
        self._now = now
        self._period_s = min(LONGEST_PERIOD_S, bound_s / 4, period_s or LONGEST_PERIOD_S)
        self._ended = threading.Event()
        self._watched = threading.current_thread().ident
        self._asking = False
        self._stage, self._at = "starting", now()

    def beat(self, stage: str) -> None:
        """Record an event, and the next stage."""
        self._stage, self._at = stage, self._now()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Allow any silence inside the context, for a prompt to the user."""
        self._asking = True
        try:
            yield
        finally:
            self._asking = False
            self.beat("answered")

    def hangs(self) -> str | None:
        """Return the description of a hang; None without a hang, during a prompt, and while bytes
        are sent to a node.
        """
        stage, silent_s = self._stage, self._now() - self._at
        if self._asking or stage == SENDING_STAGE or silent_s <= self._bound_s:
            return None
        return (
            f"no sign of life for {format_duration(int(silent_s))}, longer than {format_duration(int(self._bound_s))}, since"
            f' "{stage}"'
        )

    @contextmanager
    def watching(
        self, hung: Callable[[str], None], alive: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Run the thread inside the context. It calls `alive` at each check, and `hung` once, with
        the description of a hang.
        """
        self._watched = threading.current_thread().ident
        thread = threading.Thread(
            target=self._run, args=(hung, alive), name="trimtab watch", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join(LONGEST_PERIOD_S)

    def _run(self, hung: Callable[[str], None], alive: Callable[[], None]) -> None:
        while not self._ended.wait(self._period_s):
            hang = self.hangs()
            if hang is not None:
                hung(f"{hang}; at {self._place()}")
                return
            alive()

    def _place(self) -> str:
        """Return the position of the watched thread: functions and lines, no values."""
        frame = sys._current_frames().get(self._watched or 0)
        if frame is None:
            return "an unknown place"
        lines = traceback.extract_stack(frame)
        ours = [line for line in lines if "/agent/" in line.filename]
        return " > ".join(
            f"{line.filename.rpartition('/agent/')[2] or line.filename}:{line.lineno} {line.name}"
            for line in (ours or lines)[-4:]
        )


class SystemdNotifier:
    """Notifies systemd, if it manages the process. Messages that cannot be sent are dropped."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        variables = os.environ if environment is None else environment
        self._address = variables.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog_s(variables)

    def ready(self) -> None:
        """Notify that the first cycle is done."""
        self._send("READY=1")

    def alive(self) -> None:
        """Notify the unit's watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Notify the normal end of the run."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send("STATUS=" + text.encode("ascii", "replace").decode().replace("\n", " ")[:200])

    def _send(self, message: str) -> None:
        if not self._address.startswith(("/", "@")):
            return
        address = self._address
        if address.startswith("@"):  # an abstract socket
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.setblocking(False)
                line.sendto(message.encode(), address)
        except OSError:
            return


def _watchdog_s(variables: Mapping[str, str]) -> float | None:
    """Return the interval of watchdog messages, in seconds: half of the unit's WatchdogSec; None
    without one.
    """
    text, pid = variables.get("WATCHDOG_USEC", ""), variables.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 2e6
