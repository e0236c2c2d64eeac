"""The Overview under the tracking rule, on a phone and a wide screen: where each asset moves, and what correcting and waiting cost."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.app.documents.status import PortfolioStatus, status_document
from agent.figures import correction_text, format_figure
from agent.policy.decide import decide
from agent.units import utc_text
from tests.browser.chromium import AXE, PHONE, WIDE, patient_context, violations
from tests.support.dashboards import golden_document
from tests.support.decisions.tracking import balance_changes, tracking_step
from tests.support.sites import Site
from tests.support.worlds import missing

RIGHT_OF_SCREEN = "[...document.querySelectorAll('main *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1).length"

BELOW_LABEL = """[...document.querySelectorAll('td.n[data-label]:has(> data:only-child)')].filter(cell => {
    const lines = cell.querySelector('data').getClientRects();
    const top = cell.getBoundingClientRect().top;
    return cell.checkVisibility() && (lines.length > 1 || lines[0].top > top + lines[0].height / 2);
}).map(cell => cell.dataset.label)"""
"""Labels of cells whose figure begins below the label's first line, or is broken."""


def alerts_of(status: Any) -> list[dict[str, Any]]:
    """Long prices for each asset, as those of WBTC."""
    prices = {"price": "45139.8", "alert_low": "35245.67", "alert_high": "57888.54", "to_low_bps": -2_192, "to_high_bps": 2_824}
    bands = {"weight_bps": 3_000, "band_bps": [2_400, 3_600], "side": "inside"}
    return [{"symbol": holding["symbol"], **prices, **bands} for holding in status["holdings"]]


@pytest.mark.parametrize(("age_s", "age_text"), [(10, ""), (4 * 60 + 5, ", 4 minutes ago"), (3 * 3_600 + 5, ", 3 hours ago")])
def test_overview__says_how_old_its_value_is(chromium: Any, tmp_path: Path, age_s: int, age_text: str) -> None:
    context = patient_context(chromium, viewport={"width": WIDE[0], "height": WIDE[1]}, timezone_id="Asia/Tokyo")
    with Site(tmp_path / "a.users") as site:
        profit = {**golden_document("28-pnl"), "until": utc_text(int(time.time()) - age_s)}
        site.board.documents["pnl"] = dict.fromkeys(("day", "all"), profit)
        name, _, session = site.enter().partition("=")
        context.add_cookies([{"name": name, "value": session, "url": f"http://localhost:{site.port}"}])
        page = context.new_page()
        page.goto(f"http://localhost:{site.port}/")
        heading = page.inner_text("h1")
        assert heading.startswith("Value, as of ")
        assert heading.endswith(f" UTC{age_text}")
    context.close()


@pytest.mark.parametrize("size", [PHONE, (1080, 1140), WIDE], ids=["390", "1080", "1280"])
def test_overview__says_where_an_asset_moves_and_what_waiting_is(chromium: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    step = tracking_step(balance_changes(WETH=3_000))
    status: Any = status_document(PortfolioStatus(step, decide(step), False, "", ()))
    weth = status["zone"]["assets"][0]
    context = patient_context(chromium, viewport={"width": size[0], "height": size[1]}, bypass_csp=True)
    with Site(tmp_path / "a.users") as site:
        site.board.documents |= {"status": status, "alerts": {"assets": alerts_of(status), "open": []}}
        name, _, session = site.enter().partition("=")
        context.add_cookies([{"name": name, "value": session, "url": f"http://localhost:{site.port}"}])
        page = context.new_page()
        page.goto(f"http://localhost:{site.port}/")
        page.wait_for_selector("tr:has-text('WETH')")
        row = " ".join(page.inner_text("tr:has(th:has-text('WETH'))").split())
        low, high = (format_figure(bps, "percent") for bps in weth["trigger_bps"])
        back_low, back_high = (format_figure(bps, "percent") for bps in weth["no_trade_bps"])
        assert f"beyond {low} or {high}" in row
        assert f"moves beyond {low} or {high}" in row or size != PHONE, "a phone shows no heads of columns"
        assert "leaves its band below" in row or size != PHONE
        dashes = page.locator("tr:has(th:has-text('USDC')) td.at:text-is('–'):visible").count()
        assert (dashes > 0) is (size != PHONE), "no loose dashes without heads of columns"
        assert page.evaluate("document.scrollingElement.scrollWidth") <= size[0], "no column is cut off"
        assert f"back to {back_low} or {back_high}" in row
        [costs] = page.locator("tr.costs").all_inner_texts()
        assert " ".join(costs.split()) == f"{correction_text(weth, 'USDC')}.", "the others are within their edges"
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(RIGHT_OF_SCREEN) == 0
    context.close()


@pytest.mark.parametrize("size", [PHONE, (1080, 1140), WIDE], ids=["390", "1080", "1280"])
@pytest.mark.parametrize("stage", [{"stage": "waiting", "since": None}, {"stage": "fired", "next_stage": "done"}], ids=["waiting", "fired"])
def test_allocation__orders_fit_the_page(chromium: Any, tmp_path: Path, size: tuple[int, int], stage: dict[str, Any]) -> None:
    step = tracking_step(balance_changes(WETH=3_000))
    status: Any = status_document(PortfolioStatus(step, decide(step), False, "", ()))
    levels = {"level": "45139.8", "level_now": None, "since": "2026-12-01 14:04:36", "next_stage": None, "unconfirmed": None, **stage}
    orders = [{"subject": "WETH", "kind": kind, **levels} for kind in ("stop_loss", "take_profit", "trailing_stop")]
    with Site(tmp_path / "a.users") as site:
        site.board.documents |= {"status": status, "alerts": {"assets": alerts_of(status), "open": []}}
        site.board.documents["orders"] = {"orders": orders, "limit_orders": [], "contradictions": []}
        name, _, session = site.enter().partition("=")
        with patient_context(chromium, viewport={"width": size[0], "height": size[1]}) as context:
            context.add_cookies([{"name": name, "value": session, "url": f"http://localhost:{site.port}"}])
            page = context.new_page()
            page.goto(f"http://localhost:{site.port}/")
            row = " ".join(page.inner_text("tr:has(th:has-text('WETH'))").split())
            assert "trailing stop 45,139.80" in row
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            assert page.evaluate(RIGHT_OF_SCREEN) == 0


@pytest.mark.parametrize("size", [PHONE, (1080, 1140), WIDE], ids=["390", "1080", "1280"])
def test_allocation__bars_of_all_assets_have_one_scale(chromium: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    status = golden_document("25-status")
    with Site(tmp_path / "a.users") as site:
        site.board.documents["status"] = status
        name, _, session = site.enter().partition("=")
        with patient_context(chromium, viewport={"width": size[0], "height": size[1]}) as context:
            context.add_cookies([{"name": name, "value": session, "url": f"http://localhost:{site.port}"}])
            page = context.new_page()
            page.goto(f"http://localhost:{site.port}/")
            widths = page.evaluate("[...document.querySelectorAll('.bar .weight')].map(bar => bar.getBoundingClientRect().width)")
    weights_bps = [holding["weight_bps"] for holding in status["holdings"]]
    assert len(widths) == len(weights_bps) > 2
    scale = max(widths) / max(weights_bps)
    assert widths == [pytest.approx(scale * weight_bps, abs=1) for weight_bps in weights_bps]


@pytest.mark.parametrize("path", ["/", "/assets", "/futures"])
def test_on_a_phone__a_figure_is_beside_its_label(chromium: Any, tmp_path: Path, path: str) -> None:
    profit = golden_document("28-pnl")
    profit["periods"][0] |= {"profit": "123456.78", "against_holding": "-12345.67"}
    with Site(tmp_path / "a.users") as site:
        site.board.documents["pnl"] = dict.fromkeys(("day", "all"), profit)
        name, _, session = site.enter().partition("=")
        with patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]}) as context:
            context.add_cookies([{"name": name, "value": session, "url": f"http://localhost:{site.port}"}])
            page = context.new_page()
            page.goto(f"http://localhost:{site.port}{path}")
            page.wait_for_selector("td.n[data-label]", state="attached")
            page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
            assert page.locator("td.n[data-label] > data:only-child").count() > 10
            assert page.evaluate(BELOW_LABEL) == []
