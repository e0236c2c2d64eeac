"""What the review of a control shows: its plan's figures, guards and costs, the back-test of an edit, and nothing as markup."""

from __future__ import annotations

import asyncio
import os
import re
import time
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.app.controls.shown_plans import TOLERANCE_BPS
from agent.app.documents.research import EditBacktestDocument
from agent.model import RunReport
from agent.observe.health import process_identity
from agent.web import controls as web_controls
from agent.web.controls import BACKTEST_NICENESS, MAX_BACKTESTS, ControlPages
from agent.web.document_cache import SeenReport
from agent.web.pages import Renderer, worst_case_lines
from agent.web.reach import Reach
from agent.web.sessions import PlanReview
from tests.cli.documents import misfits
from tests.support.dashboards import (
    ADDRESS,
    HOSTILE,
    MARKUP,
    STRATEGIES,
    StaticDocumentCache,
    figures,
    golden_document,
)
from tests.support.pages.reviews import edit_backtest, review
from tests.support.sites import FULL, READ_ONLY, Site


def test_withdrawal_review__says_what_is_paid_or_why_nothing(site: Site) -> None:
    cookie = site.enter()
    kept = golden_document("38-withdraw")

    def text(to: str | None, reason: str = "") -> str:
        plan_document = {"plan_hash": "" if reason else "ab" * 32, "reason": reason, "moves": [], "document": {**kept, "to": to}}
        path = review(site, cookie, "withdraw", plan_document)
        return " ".join(re.sub("<[^>]*>", " ", site.ask(path, Cookie=cookie)[2].decode().split("<main")[1]).split())

    assert f"Payments 100 USDC to {ADDRESS}" in text(ADDRESS)
    assert "Set aside 100 USDC Nothing is paid: no address was chosen." in text(None)
    for to in (ADDRESS, None):
        refused = text(to, "limits.payout_per_day of 50")
        assert "Nothing is paid: limits.payout_per_day of 50" in refused
        assert "100 USDC" not in refused
    kept = {**kept, "sale": golden_document("04-plan")}
    assert "Weights without the withdrawal" in text(None)


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        pytest.param((("target", "WETH=30%"), ("target", "USDC=70%"), ("in-slices", "yes")), "Edit weights", id="weights"),
        pytest.param((("target", "WETH=30%"), ("set", "policy.cooldown=12h")), "Edit weights, settings", id="weights and a setting"),
        pytest.param((("set", 'portfolio.assets.USDC.e.stop_loss="20%"'),), "Edit stop loss of USDC.e", id="order"),
        pytest.param((("set", 'alerts.targets.x.url_env="A"'), ("set", 'alerts.targets.x.events="all"')), "Edit alerts", id="alerts"),
        pytest.param((("set", 'limits.slippage="0.2%"'),), "Edit limits", id="limit"),
        pytest.param((("profile", "{}"),), "Edit settings", id="profile"),
    ],
)
def test_review_of_an_edit__is_titled_by_what_changes(site: Site, arguments: tuple[tuple[str, str], ...], title: str) -> None:
    cookie = site.enter()
    text = site.ask(review(site, cookie, "edit", None, arguments), Cookie=cookie)[2].decode()
    assert f"<h1>{title}</h1>" in text


def test_review__groups_the_digits_of_all_figures(site: Site) -> None:
    cookie = site.enter()
    verdict = {"guard": "plan_cost", "measured": "62.5 bps (1234.5 USDC)", "limit": "50 bps", "passed": False}
    document = {
        **golden_document("72-stop"), "to": ADDRESS, "verdicts": [verdict], "remedies": ["sell less than 2000 USDC"],
        "payments": [{"amount": "1234567.890123", "symbol": "USDC", "native": False}],
    }  # fmt: skip
    plan_document = {"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": document}
    text = site.ask(review(site, cookie, "stop", plan_document), Cookie=cookie)[2].decode().replace("\u00a0", " ")
    assert "<li>1,234,567.890123 USDC to " in text, "what is paid has all its digits"
    assert "plan_cost measured 0.625 % (1,234.5 USDC), limit 0.5 %" in text
    assert "sell less than 2,000 USDC" in text


@pytest.mark.parametrize(
    ("kind", "document", "warns"),
    [
        ("rebalance", golden_document("04-plan"), True), ("withdraw", golden_document("38-withdraw"), False),
        ("stop", golden_document("72-stop"), False),
        ("withdraw", golden_document("38-withdraw") | {"sale": golden_document("04-plan")}, True),
        ("edit", {"changes": ["WETH 30% to 40%"], "warnings": [], "transition": golden_document("04-plan")}, False),
        ("holdings", {"changes": [], "warnings": [], "strategies": None}, False),
    ],
    ids=["rebalance", "payment", "stop without a sale", "withdrawal with a sale", "edit", "holdings"],
)  # fmt: skip
def test_review__says_what_a_confirmation_covers_of_trades(site: Site, kind: str, document: dict[str, Any], warns: bool) -> None:
    cookie = site.enter()
    plan_document = {"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": document}
    text = site.ask(review(site, cookie, kind, plan_document, (("target", "WETH=40%"),)), Cookie=cookie)[2].decode()
    assert "and no other" not in text, "the run plans again"
    assert TOLERANCE_BPS == 500
    assert ("the amount of each token may differ by 5\N{NO-BREAK SPACE}% of the turnover" in text) is warns


@pytest.mark.parametrize("kind", ["rebalance", "confirm"])
def test_review_of_a_plan__says_why_it_trades(site: Site, kind: str) -> None:
    cookie = site.enter()
    document = golden_document("04-plan") | {"reason": "WETH at 32 % is beyond 21-29 %, stop_loss of O'Token fired"}
    plan_document = {"plan_hash": "ab" * 32, "reason": "", "moves": ["-0.19 WETH"], "document": document}
    text = site.ask(review(site, cookie, kind, plan_document), Cookie=cookie)[2].decode()
    assert "<h2>Why</h2><div>WETH at 32\N{NO-BREAK SPACE}% is beyond 21-29\N{NO-BREAK SPACE}%, stop_loss of O&#39;Token fired</div>" in text


@pytest.mark.parametrize("outcome", ["hold", "refused"])
def test_review_of_a_rebalance__folds_a_long_reason(site: Site, outcome: str) -> None:
    cookie = site.enter()
    items = "; ".join(f"asset {number}: no usable pool trades it" for number in range(9))
    document = {"plan_hash": "", "reason": f"nothing to trade; {items}", "moves": [], "document": {"outcome": outcome}}
    text = site.ask(review(site, cookie, "rebalance", document), Cookie=cookie)[2].decode()
    [(lead, rest)] = re.findall(r'<details id="d-why"[^>]*><summary>(.*?)</summary>(.*?)</details>', text, re.S)
    assert lead == "nothing to trade"
    assert "asset 8" in rest


@pytest.mark.parametrize(("outcome", "style"), [("hold", "note"), ("refused", "alarm")])
def test_review_of_a_rebalance__is_no_error_if_nothing_is_to_do(site: Site, outcome: str, style: str) -> None:
    cookie = site.enter()
    document = {"plan_hash": "", "reason": "all weights are inside", "moves": [], "document": {"outcome": outcome}}
    text = site.ask(review(site, cookie, "rebalance", document), Cookie=cookie)[2].decode()
    [shown_style] = re.findall(r'<div [^>]*class="(\w+)"[^>]*>[^<]*all weights are inside', text)
    assert shown_style == style
    assert ("No rebalance now: " in text) is (outcome == "hold")


def test_xss_what_a_review_shows_is_text(site: Site) -> None:
    """Moves, reasons and lines of the config have symbols and texts that others wrote."""
    cookie = site.enter()
    preview_document = {
        "changes": [MARKUP], "rebalance_count": 2, "warnings": [HOSTILE], "to": HOSTILE,
        "payments": [{"amount": "1", "symbol": HOSTILE, "native": False}],
    }  # fmt: skip
    document = {"plan_hash": "ab" * 32, "reason": MARKUP, "moves": [HOSTILE], "document": preview_document}
    path = review(site, cookie, "stop", document, (("send-to", MARKUP),))
    text = site.ask(path, Cookie=cookie)[2].decode()
    assert HOSTILE not in text
    assert MARKUP not in text
    assert text.count("&lt;img src=x") == 5
    assert text.count("&lt;script&gt;") == 3


def test_new_ledgers__are_shown_where_they_are_confirmed(site: Site) -> None:
    cookie = site.enter()
    session_cookie = {"changes": [MARKUP], "warnings": [HOSTILE], "strategies": STRATEGIES}
    document = {"plan_hash": "ab" * 32, "reason": "", "moves": [HOSTILE], "document": session_cookie}
    path = review(site, cookie, "holdings", document, (("apply", "yes"),))
    text = site.ask(path, Cookie=cookie)[2].decode()
    assert HOSTILE not in text
    assert MARKUP not in text
    assert "Nothing is sent" in text
    base = "review.document.strategies.strategies"
    paths = site.compared(path, {**site.board.documents, "review": {"document": session_cookie}}, Cookie=cookie)
    assert paths >= {f"{base}.{number}.holdings.0.{key}" for number in range(2) for key in ("amount", "value", "weight_bps")}
    plan = review(site, cookie, "rebalance", {**document, "document": {**golden_document("04-plan"), "strategies": {"acting": []}}})
    assert "Nothing is sent" not in site.ask(plan, Cookie=cookie)[2].decode()


def test_user_without_control__reads_what_to_type(site: Site) -> None:
    for page, commands in (
        ("/strategies", ("strategies apply", "strategies deposits-to all")), ("/liquidity", ("lp take 2", "lp forget 1")),
    ):  # fmt: skip
        for user in (READ_ONLY, FULL):
            text = site.ask(page, Cookie=site.enter(user))[2].decode()
            assert [f"<code>trimtab {command}</code>" in text for command in commands] == [user == READ_ONLY] * 2
            assert ('action="/controls/holdings"' in text) is (user == FULL)


@pytest.mark.parametrize("name", ["", "plan", "sale", "transition"])
def test_each_figure_of_a_review_is_that_of_its_plan(site: Site, name: str) -> None:
    plan = golden_document("04-plan")
    cookie = site.enter()
    document = {name: plan} if name else plan
    path = review(site, cookie, "rebalance", {"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": document})
    base = f"review.document{'.' if name else ''}{name}"
    paths = site.compared(path, {**site.board.documents, "review": {"document": document}}, Cookie=cookie)
    lists = {"legs": ("amount_in_raw", "amount_out_raw", "min_out_raw", "impact_bps"), "verdicts": ("guard", "measured", "limit")}
    expected_paths = {f"{base}.{of}.{number}.{key}" for of, keys in lists.items() for number in range(len(plan[of])) for key in keys}
    assert paths >= expected_paths | {
        f"{base}.{key}" for key in ("turnover", "worst_case", "cost.total", "cost.gas", "weights_after_bps.WETH")
    }


def edited_plan(**parts: Any) -> dict[str, Any]:
    return {**golden_document("04-plan"), **parts}


@pytest.mark.parametrize(
    ("plan", "line_count"),
    [
        (edited_plan(), 4),
        (edited_plan(sandwich=None), 2),
        (edited_plan(cost={**golden_document("04-plan")["cost"], "skew": "-2", "total": "-0.61223"}, worst_case="19.969959",
                     sandwich={"at_most": "3.269672", "profit_at_most": "20.372115"}), 4),
        (edited_plan(worst_case=None), 0),
        ({"reason": "nothing to trade"}, 0),
    ],
    ids=["rebalance", "sale of a stop", "skew that gains", "unknown", "hold"],
)  # fmt: skip
def test_worst_case__is_the_sum_of_its_lines(plan: dict[str, Any], line_count: int) -> None:
    lines = worst_case_lines(plan)
    assert len(lines) == line_count
    if line_count:
        assert sum(Decimal(line.amount) for line in lines) == round(Decimal(plan["worst_case"]), 2)
        assert all(Decimal(line.amount) > 0 for line in lines[1:])


@pytest.mark.parametrize(
    ("expected", "worst_case", "amounts"),
    [("2.0075", "3.013", ["2.00", "1.01"]), ("1.0049", "2.0098", ["1.01", "1.00"]), ("1", "1.0031", ["1.0000", "0.0031"])],
    ids=["rounded down", "rounded up", "less than a cent"],
)
def test_worst_case__has_shown_parts_that_add_up(expected: str, worst_case: str, amounts: list[str]) -> None:
    plan = edited_plan(sandwich=None, worst_case=worst_case, cost={"total": expected, "gas": "0", "approvals": "0"})
    assert [line.amount for line in worst_case_lines(plan)] == amounts


@pytest.mark.parametrize("kind", ["rebalance", "stop"])
def test_worst_case__is_folded_with_each_minimum(site: Site, kind: str) -> None:
    plan = edited_plan()
    cookie = site.enter()
    stop = {**golden_document("72-stop"), "sale": plan, "sales": [plan]}
    document = {"plan_hash": "ab" * 32, "reason": "", "moves": ["+1 USDC"], "document": plan if kind == "rebalance" else stop}
    text = site.ask(review(site, cookie, kind, document), Cookie=cookie)[2].decode()
    [fold] = re.findall(r'<details id="d-worst">(.*?)</details>', text, re.S)
    fold_text = re.sub("<[^>]*>", "", fold)
    assert "WETH to USDC: at least 1,036.77 USDC, instead of 1,039.89" in fold_text
    assert "WETH to WBTC: at least 0.00082854 WBTC, instead of 0.00083104" in fold_text
    assert "21.97" in fold_text


@pytest.mark.parametrize("name", ["", "sale", "transition"])
def test_weights_before__are_those_at_the_block_of_the_plan(site: Site, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plan = {**golden_document("04-plan"), "block": 274, "weights_before_bps": {"WETH": 2_801, "USDC": 7_199}}
    status = golden_document("25-status")
    assert {holding["symbol"]: holding["weight_bps"] for holding in status["holdings"]}["WETH"] != 2_801
    monkeypatch.setitem(site.board.documents, "status", {**status, "block": 270})
    monkeypatch.setitem(site.board.documents, "plan", plan)
    cookie = site.enter()
    document = {name: plan} if name else plan
    path = review(site, cookie, "rebalance", {"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": document})
    for page in (path, "/plan"):
        table = site.ask(page, Cookie=cookie)[2].decode().partition('aria-labelledby="t-after">')[2].partition("</table>")[0]
        words = re.sub("<[^>]*>", " ", table).split()
        assert words[:6] == ["Asset", "At", "block", "274", "After", "Target"]
        assert words[words.index("WETH") + 1] == "28.01", words


def test_guards__are_folded_unless_one_refuses(site: Site) -> None:
    cookie = site.enter()
    plan = golden_document("04-plan")
    off = sum(verdict["limit"] == "off" for verdict in plan["verdicts"])
    count = len(plan["verdicts"]) - off
    last = plan["verdicts"][-1]
    assert off > 0
    for failed, summary, first in (
        (0, f'<details id="d-guards"><summary>Guards: {count} passed, {off} off<', plan["verdicts"][0]["guard"]),
        (1, f'<details id="d-guards" open><summary>Guards: 1 refused, {count - 1} passed, {off} off<', last["guard"]),
    ):
        verdicts = [*plan["verdicts"][:-1], {**last, "passed": not failed}]
        document = {"plan_hash": "ab" * 32, "reason": "", "moves": ["-1.123456789 WETH"], "document": {**plan, "verdicts": verdicts}}
        text = site.ask(review(site, cookie, "rebalance", document), Cookie=cookie)[2].decode()
        before, _, guards = text.partition(summary)
        assert figures(guards)[0][3] == first
        assert guards.count("–</td>") == off, "a guard that is off passes nothing"
        order = ("What moves", "−1.12345 WETH", "Expected cost", "Worst case", "Weights after", ">Rebalance</button>", 'id="d-legs"')
        places = [before.index(mark) for mark in order]
        assert places == sorted(places)


def test_skipped_pools_are_named_and_no_address_is_shown_instead(site: Site) -> None:
    plan = golden_document("04-plan")
    cookie = site.enter()
    pool = "0x" + "ab" * 20
    plan = {**plan, "pools": {pool: f"WETH/USDC {MARKUP}"}, "skipped": [{"subject": f"pool {pool}", "why": "gas costs more than it saves"}]}
    path = review(site, cookie, "rebalance", {"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": plan})
    text = site.ask(path, Cookie=cookie)[2].decode()
    assert "Skipped WETH/USDC &#34;" in text
    assert pool not in text
    assert MARKUP not in text


@pytest.mark.parametrize(
    ("key", "is_first"),
    [("strategies.trend.share", True), ("lp.targets.0.share", True), ("portfolio.assets.WETH.target", True),
     ("portfolio.assets.WETH.stop_loss", False), ("limits.turnover", False), ("policy.cooldown", False)],
)  # fmt: skip
def test_edit_of_targets__shows_its_moves_and_costs_first(site: Site, key: str, is_first: bool) -> None:
    document = {"changes": [f"+ {key} = 1"], "rebalance_count": 1, "warnings": [], "transition": golden_document("04-plan")}
    preview = {"plan_hash": "ab" * 32, "reason": "", "moves": ["-1.123456789 WETH"], "document": document}
    cookie = site.enter()
    text = site.ask(review(site, cookie, "edit", preview, (("set", f"{key}=1"),)), Cookie=cookie)[2].decode()
    before, _, after = text.partition(">Write these settings</button>")
    for mark in ("What moves", "Expected cost", "Weights after"):
        assert (mark in before) is is_first
    assert ('id="d-rebalance"' in after) is not is_first


@pytest.mark.parametrize("holds", [False, True], ids=["trades", "holds"])
def test_edit_of_targets__shows_what_the_next_cycle_does(site: Site, holds: bool) -> None:
    plan = golden_document("04-plan")
    at_targets = {**plan, "weights_after_bps": dict.fromkeys(plan["weights_after_bps"], 1_111)}
    next_cycle = {**plan, "legs": [], "reason": "all within their bands"} if holds else {**plan, "reason": "back to the edge"}
    document = {"changes": [], "rebalance_count": 2, "warnings": [], "transition": at_targets, "next_cycle": next_cycle}
    preview = {"plan_hash": "ab" * 32, "reason": "", "moves": ["-1 WETH"], "document": document}
    cookie = site.enter()
    text = site.ask(review(site, cookie, "edit", preview, (("target", "WETH=30%"),)), Cookie=cookie)[2].decode()
    before, _, after = text.partition(">Write these settings</button>")
    assert next_cycle["reason"] in before
    assert ("Trades nothing now: all within" in before) is holds
    assert not re.search(r"<section>\s*</section>", text), "an empty one takes a place of the grid, and the button slides down"
    shown_paths = {of for of, *_ in figures(before) if "weights_after_bps" in of}
    assert all(path.startswith("review.document.next_cycle.") for path in shown_paths)
    assert bool(shown_paths) is not holds
    assert "What moves" not in before
    assert "11.11" in after, "the whole way is folded below"


@pytest.mark.parametrize("outcome", ["planned", "hold"])
@pytest.mark.parametrize("key", ["portfolio.assets.USDC.reserve", "limits.max_weight", "policy.trigger"])
def test_edit_without_targets__shows_first_what_the_next_cycle_trades(site: Site, key: str, outcome: str) -> None:
    plan = golden_document("04-plan")
    next_cycle = {**plan, "outcome": outcome, "reason": "first purchase"}
    document = {"changes": [], "rebalance_count": 1, "warnings": [], "transition": plan, "next_cycle": next_cycle}
    preview = {"plan_hash": "ab" * 32, "reason": "", "moves": ["-100 USDC"], "document": document}
    cookie = site.enter()
    text = site.ask(review(site, cookie, "edit", preview, (("set", f'{key}="0"'),)), Cookie=cookie)[2].decode()
    before, _, _ = text.partition(">Write these settings</button>")
    for mark in ("The whole way to the targets", "first purchase", "Expected cost", "Weights after the next cycle"):
        assert (mark in before) is (outcome == "planned")


def test_an_edit_whose_weights_cause_no_swap_says_why(site: Site) -> None:
    cookie = site.enter()
    pool = "0x" + "ab" * 20
    transition = {**golden_document("04-plan"), "legs": [], "skipped": [], "verdicts": []}
    transition |= {"pools": {pool: f"WETH/USDC {MARKUP}"}, "reason": f"nothing to trade: pool {pool}: gas costs more than it saves"}
    document = {"changes": [], "rebalance_count": 1, "warnings": [], "transition": transition}
    path = review(site, cookie, "edit", {"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": document})
    text = site.ask(path, Cookie=cookie)[2].decode()
    assert "cause no swap: nothing to trade: WETH/USDC &#34;" in text
    assert pool not in text
    assert MARKUP not in text


@pytest.mark.parametrize("has_ended", [True, False], ids=["ended", "running"])
def test_controls_page__says_whether_a_run_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch, has_ended: bool) -> None:
    now_s = int(time.time())
    report = RunReport("a", process_identity(), True, 600, now_s, now_s, ended_s=now_s if has_ended else None)
    monkeypatch.setattr(site.board, "_seen_report", SeenReport(report, time.monotonic()))
    text = site.ask("/controls", Cookie=site.enter())[2].decode()
    assert ("no run goes on: figures are those of the chain" in text) is has_ended


def test_every_sale_of_a_stop_is_shown_with_its_cost(site: Site) -> None:
    plan = golden_document("04-plan")
    cookie = site.enter()
    dear = {**plan, "turnover": "77.5", "cost": {**plan["cost"], "total": "9.25"}}
    document = {"sale": plan, "sales": [plan, dear]}
    path = review(site, cookie, "stop", {"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": document})
    paths = site.compared(path, {**site.board.documents, "review": {"document": document}}, Cookie=cookie)
    assert paths >= {f"review.document.sales.{number}.{key}" for number in (0, 1) for key in ("turnover", "cost.total", "worst_case")}
    assert "9.25" in site.ask(path, Cookie=cookie)[2].decode()


def test_back_test__stands_beside_an_edit_s_plan_and_never_waits(site: Site) -> None:
    cookie = site.enter()
    path = review(site, cookie, "edit", {"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": {}})
    session = site.access.find_session(cookie.partition("=")[2], touch=False)
    kept = session.reviews[path.rpartition("/")[2]]
    text = site.ask(path, Cookie=cookie)[2].decode()
    assert "Testing these settings" in text
    assert 'hx-select="#backtest"' in text
    assert 'name="plan_hash"' in text
    kept.backtest = document = edit_backtest()
    assert misfits(EditBacktestDocument, document) == []
    text = site.ask(path, Cookie=cookie)[2].decode()
    value_by_path = {of: (value, text) for of, _, value, text in figures(text)}
    assert value_by_path["backtest.neighbours.overfitting"] == ("0.625", "62.50 %")
    assert value_by_path["backtest.edited.return"] == ("0.5", "+50.00 %")
    assert "chance may explain it" in text
    assert "too few days" in text
    assert 'hx-select="#backtest"' not in text
    assert MARKUP not in text
    assert HOSTILE not in text
    kept.backtest = edit_backtest(neighbours=None)
    assert "over-fitting" not in site.ask(path, Cookie=cookie)[2].decode()
    kept.backtest = None
    kept.backtest_error = MARKUP
    text = site.ask(path, Cookie=cookie)[2].decode()
    assert "No backtest: " in text
    assert MARKUP not in text
    assert 'name="plan_hash"' in text


def test_plan_to_confirm__lets_the_other_pages_follow(config: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> int:
        cache = StaticDocumentCache(str(config), config)
        pages = ControlPages(site.access, cache, Renderer(Reach()))
        monkeypatch.setattr(pages._plan_process, "call", AsyncMock(return_value={}))
        refresh = Mock()
        monkeypatch.setattr(cache, "refresh", refresh)
        await pages._plan(PlanReview("rebalance", ()))
        return refresh.call_count

    assert asyncio.run(scene()) == 1, "the plan is of a newer block than their figures"


@pytest.mark.slow
def test_long_back_test__is_ended_and_one_too_many_refused(config: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> list[str]:
        pages = ControlPages(site.access, StaticDocumentCache(str(config), config), Renderer(Reach()))
        reviews = [PlanReview("edit", (("target", "NONE=1%"),)) for _ in range(MAX_BACKTESTS + 1)]
        monkeypatch.setattr(web_controls, "BACKTEST_TIMEOUT_S", 0.05)
        await pages._backtest(reviews[0])
        assert reviews[0].backtest_error.startswith("it took longer than")
        monkeypatch.setattr(web_controls, "BACKTEST_TIMEOUT_S", 600.0)
        await asyncio.gather(*map(pages._backtest, reviews[1:] + reviews[:1]))
        (process,) = (pages._backtest_process._pool._processes or {}).values()  # type: ignore[union-attr]  # it has started
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == BACKTEST_NICENESS
        pages.close()
        return [review.backtest_error for review in reviews]

    first, *others = asyncio.run(scene())
    assert first == "other backtests are waiting (ask again in a few minutes)"
    assert len(others) == MAX_BACKTESTS
    assert all("NONE" in why for why in others)


@pytest.mark.parametrize(("count", "is_backtested"), [(1, False), (2, True)], ids=["alerts alone", "a trigger too"])
def test_edit_of_alert_targets__needs_no_backtest(count: int, is_backtested: bool) -> None:
    arguments = (("set", 'alerts.targets.phone="off"'), ("set", "policy.cooldown=9h"))[:count]
    assert PlanReview("edit", arguments).trades_differently is is_backtested
