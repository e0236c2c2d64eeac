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
        (matching_controls,) = [control_document for control_document in document["controls"] if control_document["id"] == control]
        if matching_controls["state"] not in ("queued", "taken"):
            return matching_controls
        assert time.monotonic() - begun < within_s, document
        time.sleep(0.05)
