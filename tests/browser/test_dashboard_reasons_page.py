"""A long reason on a phone and a wide screen, by keyboard: its first sentence, and the rest unfolded by Enter."""

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

LEAD = "WBTC at 18 %, target 30 %, is beyond 19-40 %; but nothing to trade: limits.plan_cost of 0.5 % allows no trade"
POOL = f"0x{9:040x}"
REASON = "; ".join((LEAD, "WBTC: 555.91 USDC off target", *(f"pool 0x{number:040x}: too small" for number in range(1, 10))))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "trimtab.db.users") as site:
        documents = site.board.documents
        step = {**golden_document("26-history")["steps"][0], "step": "s0", "outcome": "hold", "reason": REASON, "transactions": []}
        documents["history"] = {**golden_document("26-history"), "steps": [step]}
        documents["status"] = {**documents["status"], "decision": {"kind": "hold", "reason": REASON}}
        documents["plan"] = {**documents["plan"], "outcome": "hold", "reason": REASON}
        yield site


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
@pytest.mark.parametrize(
    ("path", "mark"), [("/", "d-decision"), ("/history", "d-s0"), ("/plan", "d-why")], ids=["overview", "history", "plan"]
)
def test_long_reason__unfolds_by_keyboard(chromium: Any, site: Site, path: str, mark: str, size: tuple[int, int]) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    context = patient_context(chromium, viewport={"width": size[0], "height": size[1]}, bypass_csp=True)
    context.add_cookies([{"name": "trimtab-1", "value": site.enter().partition("=")[2], "url": f"http://localhost:{site.port}"}])
    page = context.new_page()
    page.goto(f"http://localhost:{site.port}{path}")
    page.wait_for_selector("#connection:has-text('Live')")
    text = page.locator("main").inner_text().replace("\u00a0", " ")
    assert LEAD.lower() in text.lower()
    assert POOL not in text

    page.focus(f"#{mark} > summary")
    page.keyboard.press("Enter")

    assert page.locator(f"text={POOL}").first.is_visible()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
