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

from agent.chain.providers.sessions import RedirectFreeSession
from agent.foreign_text import failure_words
from agent.units import format_duration

HttpMethod = Literal["GET", "POST"]
HEARTBEAT_TIMEOUT_S = 5.0


class Heartbeat:
    """Sends heartbeats from a thread, one at a time, so that a slow server delays no cycle. The URL
    is a secret (T18).
    """

    def __init__(
        self,
        url: str,
        method: HttpMethod,
        on_failure: Callable[[str], None],
        timeout_s: float = HEARTBEAT_TIMEOUT_S,
    ) -> None:
        self._url = url
        self._host = _host(url)
        self._method = method
        self._on_failure = on_failure
        self._timeout_s = timeout_s
        self._send_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return "Heartbeat(hidden)"

    def beat(self) -> None:
        """Send a heartbeat, or report a failure if the previous one is still being sent, or if no
        thread can be started.
        """
        if not self._send_lock.acquire(blocking=False):
            self._on_failure("the previous heartbeat is still being sent")
            return
        thread = threading.Thread(target=self._send, name="trimtab heartbeat", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._send_lock.release()
            self._on_failure("the system could not start a thread for the heartbeat")
            return
        self._thread = thread

    def wait_until_sent(self, within_s: float = HEARTBEAT_TIMEOUT_S) -> None:
        """Wait until the last heartbeat was sent or failed."""
        if self._thread is not None:
            self._thread.join(within_s)

    def _send(self) -> None:
        try:
            failure = self._request()
        finally:
            self._send_lock.release()
        if failure:
            self._on_failure(failure)

    def _request(self) -> str:
        """Send the request. Return why it failed, without the URL and the server's answer; empty
        if it succeeded.
        """
        try:
            with (
                RedirectFreeSession() as session,
                session.request(
                    self._method,
                    self._url,
                    timeout=self._timeout_s,
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                status_code = response.status_code
        except requests.RequestException as error:
            return f"{self._host}: {failure_words(error)}"
        except Exception as error:  # urllib3 and idna raise their own errors on odd addresses; a heartbeat must not end a run
            return failure_words(error)
        return "" if status_code < 300 else f"{self._host}: HTTP {status_code}"


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "no host"
    except ValueError:
        return "no host"


SENDING_STAGE = "before:send"
"""Stage that the executor reports just before it sends bytes; at its next stage they have been
sent.
"""
MAX_CHECK_PERIOD_S = 5.0


class Watchdog:
    """Detects hangs: a silence longer than `max_silence_s`. `clock` is monotonic, in seconds.

    Every event of a step and each part of a wait ends a silence.
    """

    def __init__(
        self,
        max_silence_s: float,
        clock: Callable[[], float] = time.monotonic,
        period_s: float | None = None,
    ) -> None:
        """Set the bounds; `period_s` is the longest interval between checks."""
        self.max_silence_s = max_silence_s
        self._clock = clock
        self._period_s = min(MAX_CHECK_PERIOD_S, max_silence_s / 4, period_s or MAX_CHECK_PERIOD_S)
        self._watched_thread = threading.current_thread().ident
        self._is_asking = False
        self._stage = "starting"
        self._last_event_s = clock()

    def watch_this_thread(self) -> None:
        """Watch the current thread from now on."""
        self._watched_thread = threading.current_thread().ident
        self.beat("starting")

    def beat(self, stage: str) -> None:
        """Record an event, and the next stage."""
        self._last_event_s = self._clock()  # first: the thread that checks may come between
        self._stage = stage

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Allow any silence inside the context, for a prompt to the user."""
        self._is_asking = True
        try:
            yield
        finally:
            self.beat("answered")
            self._is_asking = False

    def hang_text(self) -> str | None:
        """Return the description of a hang; None without a hang, during a prompt, and while bytes
        are sent to a node.
        """
        is_asking = self._is_asking  # read in the order opposite to that of writing
        stage = self._stage
        silent_s = self._clock() - self._last_event_s
        if is_asking or stage == SENDING_STAGE or silent_s <= self.max_silence_s:
            return None
        return (
            f"no sign of life for {format_duration(int(silent_s))}, longer than {format_duration(int(self.max_silence_s))}, since"
            f' "{stage}"'
        )

    @contextmanager
    def watching(
        self, on_hang: Callable[[str], None], on_check: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Run the thread inside the context. It calls `on_check` at each check, and `on_hang` once,
        with the description of a hang.
        """
        self._watched_thread = threading.current_thread().ident
        stop = threading.Event()
        watch_thread = threading.Thread(
            target=self._check_periodically,
            args=(stop, on_hang, on_check),
            name="trimtab watch",
            daemon=True,
        )
        watch_thread.start()
        try:
            yield
        finally:
            stop.set()
            watch_thread.join(MAX_CHECK_PERIOD_S)

    def _check_periodically(
        self, stop: threading.Event, on_hang: Callable[[str], None], on_check: Callable[[], None]
    ) -> None:
        while not stop.wait(self._period_s):
            hang_text = self.hang_text()
            if hang_text is not None:
                on_hang(f"{hang_text}; at {self.thread_position()}")
                return
            on_check()

    def thread_position(self) -> str:
        """Return where the watched thread is: functions and lines, no values."""
        frame = sys._current_frames().get(self._watched_thread or 0)
        if frame is None:
            return "an unknown place"
        frames = traceback.extract_stack(frame)
        agent_frames = [
            frame_summary for frame_summary in frames if "/agent/" in frame_summary.filename
        ]
        return " > ".join(
            f"{frame_summary.filename.rpartition('/agent/')[2] or frame_summary.filename}:{frame_summary.lineno} {frame_summary.name}"
            for frame_summary in (agent_frames or frames)[-4:]
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
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            ) as connection:
                connection.setblocking(False)
                connection.sendto(message.encode(), address)
        except OSError:
            return


def _watchdog_s(variables: Mapping[str, str]) -> float | None:
    """Return the interval of watchdog messages, in seconds: half of the unit's WatchdogSec; None
    without one.
    """
    interval_text = variables.get("WATCHDOG_USEC", "")
    pid = variables.get("WATCHDOG_PID", "")
    if (
        not interval_text.isdecimal()
        or int(interval_text) == 0
        or (pid and pid != str(os.getpid()))
    ):
        return None
    return int(interval_text) / 2e6
