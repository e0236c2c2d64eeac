"""Where Chromium is, and how tests start it."""

from __future__ import annotations

import shutil

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDE, PHONE = (1280, 900), (390, 844)
PATIENCE_MS = 120_000
REMEDY = "no Chromium: apt-get install -y --no-install-recommends chromium"


def program() -> str | None:
    """The browser's path, where there is one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)
