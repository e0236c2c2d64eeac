"""Controls that have ended."""

from __future__ import annotations

import time
from typing import Any

from tests.cli.tools import Desk


def ended_control(desk: Desk, control: str, within_s: float = 20) -> Any:
    """The control once it has ended."""
    begun = time.monotonic()
    while True:
        document = desk.ask("controls")
        (found,) = [one for one in document["controls"] if one["id"] == control]
        if found["state"] not in ("queued", "taken"):
            return found
        assert time.monotonic() - begun < within_s, document
        time.sleep(0.05)
