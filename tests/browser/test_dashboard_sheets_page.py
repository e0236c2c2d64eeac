"""A sheet of a control, by keyboard: Tab stays inside while it is open, also after a live update has replaced its button."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from tests.browser.chromium import WIDE, patient_context
from tests.support.sites import Site

FOCUSED = "document.activeElement.id || document.activeElement.textContent"
FIELDS = ["f-reason", "c-pause-hard", "Pause"]
"""What the sheet of a pause has, in its order."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "trimtab.db.users") as site:
        yield site


@pytest.fixture
def page(site: Site, chromium: Any) -> Iterator[Any]:
    """The Overview of a user, with the sheet of a pause open."""
    address = f"http://localhost:{site.port}"
    with patient_context(chromium, viewport={"width": WIDE[0], "height": WIDE[1]}, base_url=address) as context:
        context.add_cookies([{"name": "trimtab-1", "value": site.enter().partition("=")[2], "url": address}])
        page = context.new_page()
        page.goto("/")
        page.click("#b-pause")
        page.wait_for_selector("#pause:popover-open")
        yield page


def replace_button(site: Site, page: Any) -> None:
    """Let a live update replace the button that has opened the sheet."""
    page.evaluate("document.getElementById('b-pause').dataset.old = 'yes'")
    site.loop.call_soon_threadsafe(site.board.announce_change)
    page.wait_for_selector("#b-pause:not([data-old])")


def focused_by(page: Any, key: str, count: int) -> list[str]:
    focused = []
    for _ in range(count):
        page.keyboard.press(key)
        focused.append(page.evaluate(FOCUSED))
    return focused


@pytest.mark.parametrize("is_replaced", [False, True], ids=["button there", "button replaced"])
def test_tab_goes_round_inside_an_open_sheet(site: Site, page: Any, is_replaced: bool) -> None:
    if is_replaced:
        replace_button(site, page)
    assert page.evaluate(FOCUSED) == FIELDS[-1]
    assert focused_by(page, "Tab", 4) == [*FIELDS, FIELDS[0]]
    assert focused_by(page, "Shift+Tab", 2) == [FIELDS[-1], FIELDS[-2]]


def test_escape_closes_the_sheet_and_tab_is_free_again(page: Any) -> None:
    page.keyboard.press("Escape")
    page.wait_for_selector("#pause:not(:popover-open)", state="attached")
    assert not set(focused_by(page, "Tab", 3)) & set(FIELDS[:2])
