"""The review of a stop, on a phone and a wide screen: all that it ends, sells and pays, before it is confirmed."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from tests.browser.chromium import AXE, PHONE, WIDE, patient_context, violations
from tests.support.dashboards import ADDRESS, HOSTILE, golden_document
from tests.support.pages.reviews import review
from tests.support.pages.setup_keys import tab_to
from tests.support.sites import Site
from tests.support.worlds import missing

PLAN_HASH = "ab" * 32


def stop_document() -> dict[str, Any]:
    """A stop with two sales, a pending transaction, an open allowance and a payment."""
    plan = golden_document("04-plan")
    second = {**plan, "turnover": "77.5", "worst_case": "8.5", "legs": [{**plan["legs"][0], "token_in": "LINK"}]}
    return {
        **golden_document("72-stop"),
        "to_stable": True,
        "to": ADDRESS,
        "cancel": [{"kind": "swap", "status": "broadcast", "block": None, "note": f"swap {HOSTILE}", "hash": ""}],
        "revoke": [{"token": ADDRESS, "symbol": "WBTC", "spender": ADDRESS, "holder": "router"}],
        "sale": plan,
        "sales": [plan, second],
        "sales_total": {"turnover": "1117.4", "cost": "3.75", "worst_case": "19.25", "weights_after_bps": {"USDC": 9_900, "LINK": 100}},
        "payments": [{"token": ADDRESS, "symbol": "USDC", "amount": "9000", "native": False, "raw": "9000000000"}],
        "futures": "positions stay open in ETH",
    }


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_stop__is_shown_whole_before_it_is_confirmed(chromium: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    context = patient_context(chromium, viewport={"width": size[0], "height": size[1]}, bypass_csp=True)
    with Site(tmp_path / "trimtab.db.users") as site:
        cookie = site.enter()
        preview = {"plan_hash": PLAN_HASH, "reason": "", "moves": ["-1 WETH", "pay 9000 USDC"], "document": stop_document()}
        path = review(site, cookie, "stop", preview)
        context.add_cookies([{"name": "trimtab-1", "value": cookie.partition("=")[2], "url": f"http://localhost:{site.port}"}])
        page = context.new_page()
        page.goto(f"http://localhost:{site.port}{path}")
        text = " ".join(page.inner_text("main").split())
        for part in (
            f"Pending transactions: swap {HOSTILE}",
            f"WBTC, router {ADDRESS}",
            "stop losses and take profits, until trimtab resume at the terminal",
            "positions stay open in ETH",
            "9,000 USDC",
            "Weights after all sales",
        ):
            assert part in text
        facts = " ".join(page.locator(".confirm .facts").inner_text().split())
        assert "Expected cost of all sales 3.75 USDC Worst case 19.25 USDC" in facts
        rows = [row.split() for row in page.locator("[aria-labelledby=t-sales] tbody tr").all_inner_texts()]
        assert len(rows) == 3
        assert {"3.75", "19.25"} <= set(rows[-1]), "the last row sums them up"
        after = " ".join(page.locator("[aria-labelledby=t-after]").inner_text().split())
        assert "USDC 9.80 % 99.00 %" in after, "before is the weight at the block of the plan"
        assert "LINK 9.80 % 1.00 %" in after
        assert violations(page) == []
        page.evaluate("() => document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab_to(page, "#yes")
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Stop"
    context.close()


def test_stop__without_a_sale_says_that_everything_stays(tmp_path: Path) -> None:
    with Site(tmp_path / "trimtab.db.users") as site:
        cookie = site.enter()
        preview = {"plan_hash": PLAN_HASH, "reason": "", "moves": [], "document": golden_document("72-stop")}
        text = site.ask(review(site, cookie, "stop", preview), Cookie=cookie)[2].decode()
    for part in ("Pending transactions: none", "Allowances: none", "Nothing is sold", "trimtab resume"):
        assert part in text
    assert "Weights after" not in text


@pytest.mark.parametrize(("outcomes", "rows"), [(["planned", "planned"], 3), (["planned", "refused"], 2), (["refused"], 0)])
def test_stop__lists_no_refused_sale(tmp_path: Path, outcomes: list[str], rows: int) -> None:
    document = stop_document()
    sales = [{**document["sales"][0], "outcome": outcome} for outcome in outcomes]
    total = document["sales_total"] if "planned" in outcomes else None
    document |= {"sales": sales, "sales_total": total, "reason": "the sale waits: depeg measured 300 bps (DAI)"}
    with Site(tmp_path / "trimtab.db.users") as site:
        cookie = site.enter()
        preview = {"plan_hash": PLAN_HASH, "reason": "", "moves": [], "document": document}
        text = site.ask(review(site, cookie, "stop", preview), Cookie=cookie)[2].decode()
    assert "the sale waits: depeg measured 3 % (DAI)" in text.replace("\u00a0", " ")
    table = text.partition('id="t-sales"')[2].partition("</table>")[0]
    assert table.count('<th scope="row">') == rows
