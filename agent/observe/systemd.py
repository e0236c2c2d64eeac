"""Tells systemd how the run does (sd_notify(3)): ready, alive, stopping, and one line of status."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Silent where no service manager listens. A message that cannot be sent is dropped: it never harms the run."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        self._address = found.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog_s(found)

    def ready(self) -> None:
        """The first look is done."""
        self._send("READY=1")

    def alive(self) -> None:
        """Feeds the watchdog of the unit."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The run ends in order."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line that `systemctl status` shows."""
        self._send("STATUS=" + text.encode("ascii", "replace").decode().replace("\n", " ")[:200])

    def _send(self, message: str) -> None:
        if not self._address.startswith(("/", "@")):
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.setblocking(False)
                line.sendto(message.encode(), address)
        except OSError:
            return


def _watchdog_s(found: Mapping[str, str]) -> float | None:
    """How often the unit wants to hear of us, in seconds: half of its WatchdogSec; None where it does not want to."""
    text, pid = found.get("WATCHDOG_USEC", ""), found.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 2e6
