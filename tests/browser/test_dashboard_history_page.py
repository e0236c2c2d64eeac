"""The history on a phone and a wide screen, by keyboard: equal holds are one row, and filters show steps of one kind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from tests.browser.chromium import AXE, PHONE, WIDE, patient_context, violations
from tests.support.dashboards import golden_document
from tests.support.sites import Site
from tests.support.worlds import missing

STEPS = (
    ("hold", "largest drift 0.21 of 1.50 points", ""),
    ("hold", "largest drift 0.2 of 1.50 points", ""),
    ("hold", "largest drift 0.19 of 1.50 points", ""),
    ("refused", "price_impact measured 120 bps, limit 100 bps", ""),
    ("hold", "largest drift 0.19 of 1.50 points", ""),
    ("hold", "cooldown", ""),
    ("waiting", "WETH is above its band; not confirmed; nothing was sent", ""),
    ("done", "WETH is above its band", "swap"),
    ("done", "pay 500 USDC", "payout"),
)
"""Outcome, reason and kind of transaction, newest first."""
SHOWN = "[...document.querySelectorAll('[data-step]')].filter(row => row.checkVisibility()).map(row => row.querySelector('a').textContent)"


def history() -> dict[str, Any]:
    step = golden_document("26-history")["steps"][0]
    sent = {"status": "final", "block": 1, "note": "", "hash": ""}
    return {
        **golden_document("26-history"),
        "steps": [
            {
                **step,
                "step": f"s{number}",
                "time": f"2026-01-01 00:0{9 - number}:00",
                "outcome": outcome,
                "reason": reason,
                "execution": None,
            }
            | {"transactions": [{**sent, "kind": kind}] if kind else []}
            for number, (outcome, reason, kind) in enumerate(STEPS)
        ],
    }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "trimtab.db.users") as site:
        site.board.documents["history"] = history()
        yield site


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_history__folds_equal_holds_and_filters_by_keyboard(chromium: Any, site: Site, size: tuple[int, int]) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    context = patient_context(chromium, viewport={"width": size[0], "height": size[1]}, bypass_csp=True)
    context.add_cookies([{"name": "trimtab-1", "value": site.enter().partition("=")[2], "url": f"http://localhost:{site.port}"}])
    page = context.new_page()
    page.goto(f"http://localhost:{site.port}/history")
    page.wait_for_selector("#connection:has-text('Live')")
    rows = [" ".join(row.split()) for row in page.locator("[aria-label='Other cycles'] tbody tr").all_inner_texts()]
    assert len(rows) == 5, "three holds in a row are one row; a refusal and another reason end it"
    assert "hold, 3 cycles" in rows[0]
    assert "since 2026-01-01 00:07:00" in rows[0]
    assert "\n" not in page.locator("tbody th small.line").first.inner_text(), "since and its time are on one line"
    assert [row for row in rows if "waiting" in row] == [rows[-1]]
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    page.focus("#k-all")
    rows_by_filter = {}
    for name in ("trade", "refusal", "transfer"):
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.get_attribute(f"#k-{name}", "aria-pressed") == "true"
        rows_by_filter[name] = page.evaluate(SHOWN)
    assert rows_by_filter == {"trade": ["2026-01-01 00:02:00"], "refusal": ["2026-01-01 00:06:00"], "transfer": ["2026-01-01 00:01:00"]}
    assert violations(page) == []
    site.board.documents["history"]["steps"] = history()["steps"][:-1]
    site.loop.call_soon_threadsafe(site.board.announce_change)
    page.wait_for_selector("#none:has-text('None among the newest 8 cycles')")
    assert page.evaluate(SHOWN) == [], "the filter outlives an update"
    page.focus("#k-all")
    page.keyboard.press("Enter")
    assert len(page.evaluate(SHOWN)) == 6
    context.close()


def test_history__leads_to_the_first_and_the_last_of_equal_holds(site: Site) -> None:
    text = site.ask("/history", Cookie=site.enter())[2].decode()
    assert [f'href="/history/s{number}"' in text for number in range(len(STEPS))] == [True, False, *[True] * 7]
