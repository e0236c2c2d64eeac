"""Endpoints of a config."""

from __future__ import annotations

from tests.cli.tools import Desk


def move_to(desk: Desk, url: str) -> None:
    """The config's endpoint becomes this one."""
    text = desk.config.read_text()
    old = next(line for line in text.splitlines() if line.startswith("url = "))
    desk.config.write_text(text.replace(old, f'url = "{url}"', 1))
