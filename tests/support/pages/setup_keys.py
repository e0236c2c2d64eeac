"""The set-up page by keyboard."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)
from tests.browser.chromium import violations


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.locator(f"{selector}:focus").count():
            return
    raise AssertionError(f"no way to {selector} by Tab")


def type_into(page: Any, selector: str, text: str) -> None:
    """Replace the text of a field that is reached by Tab."""
    tab_to(page, selector)
    page.keyboard.press("Control+A")
    page.keyboard.type(text)


SMALL_CONTROLS = """[...document.querySelectorAll("button, input, select, textarea, summary")].filter(control => control.checkVisibility()
  && (control.offsetWidth < 24 || control.offsetHeight < 24)).map(control => control.outerHTML)"""
"""Controls smaller than WCAG 2.5.8 asks for."""


WIDE_TABLES = """[...document.querySelectorAll(".scroll")].filter(table => table.scrollWidth > table.clientWidth)
  .map(table => table.innerText)"""
"""Tables that are wider than their place."""


def require_fine(page: Any) -> None:
    """Raise unless the page has no violation, neither it nor a table is wider than the screen, and no control is too small to hit."""
    page_violations = violations(page)
    assert page_violations == [], (page.url, page_violations)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{page.url} is wider than the screen"
    wide_tables = page.evaluate(WIDE_TABLES)
    assert wide_tables == [], (page.url, page.viewport_size, wide_tables)
    assert page.evaluate(SMALL_CONTROLS) == [], page.url


BROKEN_PERCENTS = """() => {
  const broken = [], walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode())
    for (const { index, 0: text } of node.data.matchAll(/[0-9]\\s*%/g)) {
      const range = document.createRange();
      range.setStart(node, index);
      range.setEnd(node, index + text.length);
      if (new Set([...range.getClientRects()].map(box => box.top)).size > 1) broken.push(node.data);
    }
  return broken;
}"""
"""Texts in which a line ends between a number and its "%"."""


def require_cards(page: Any, network_text: str) -> None:
    """Raise unless the baskets are cards with holdings first, unfold and are chosen by keyboard, and nothing of them is cut off."""
    cards = page.locator(".basket")
    assert cards.count() > 5
    for text in cards.all_inner_texts():
        assert text.strip().startswith("WETH"), "holdings first"
        assert f"USDC on {network_text}" in text
        assert "2021: " in text
        assert "Worst month" not in text, "folded"
    require_fine(page)
    tab_to(page, ".basket summary")
    page.keyboard.press("Enter")
    assert "Worst month" in cards.first.inner_text()
    assert "base 389" in cards.first.inner_text()
    page.focus("#b-1")
    page.keyboard.press("ArrowDown")
    assert page.is_checked("#b-2")
    page.evaluate("document.querySelectorAll('.basket details').forEach(part => part.open = true)")
    require_fine(page)
    assert page.evaluate("[...document.querySelectorAll('main *')].every(part => part.getBoundingClientRect().right <= innerWidth + 1)")
    assert page.evaluate("[...document.querySelectorAll('.basket')].every(card => card.scrollWidth <= card.clientWidth)")
    assert page.evaluate("[...document.querySelectorAll('.basket strong span')].every(holding => holding.getClientRects().length === 1)")
    assert page.evaluate("getComputedStyle(document.querySelector('.basket summary')).display") == "list-item", "with its triangle"
    assert page.evaluate(BROKEN_PERCENTS) == []
