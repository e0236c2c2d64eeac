"""Controls of the dashboard by keyboard."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)
from tests.browser.chromium import PATIENCE_MS
from tests.cli.tools import Desk
from tests.support.commands.controls import ended_control

PASSWORD = "correct horse battery"
MOST_TABS = 80


def wait_for(page: Any, condition: str) -> None:
    """Wait until an expression holds; the policy of the page forbids to evaluate it there."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, (condition, page.inner_text("main"))
        page.wait_for_timeout(100)


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until an element has the focus, which then can be seen."""
    for number in range(MOST_TABS):
        if number:
            page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            style = "(() => { const it = getComputedStyle(document.activeElement); return it.outlineStyle })()"
            assert page.evaluate(style) != "none", f"{selector} shows no focus"
            return
    raise AssertionError(f"no way to {selector} by Tab")


def fill(page: Any, selector: str, text: str) -> None:
    """Type into a field that is reached by Tab."""
    tab_to(page, selector)
    page.keyboard.press("Control+A")
    page.keyboard.type(text)


def push(page: Any, selector: str) -> None:
    """Push a button that is reached by Tab, and wait for the page that follows."""
    tab_to(page, selector)
    with page.expect_navigation():
        page.keyboard.press("Enter")


def unfold(page: Any, name: str, of: str = "") -> None:
    """Open the sheet of a control by its button, which is reached by Tab."""
    tab_to(page, f"#b-{name}{of}")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#{name}:popover-open")


def newest(desk: Desk) -> dict[str, Any]:
    """The newest control."""
    control: dict[str, Any] = desk.ask("controls")["controls"][0]
    return control


def settled_state(page: Any, desk: Desk) -> str:
    """The state of the newest control once it has ended, as the page shows it without being loaded again."""
    control = newest(desk)["id"]
    ended_control(desk, control)
    state = f"document.querySelector('[data-control=\"{control}\"]')?.textContent"
    wait_for(page, f"!['queued', 'taken', undefined].includes({state})")
    return str(page.evaluate(state))
