"""The pages of a dashboard over documents of the commands: what they show and say."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.artifacts import WEB_FOLDER
from agent.cli.display.status_tables import show_status
from agent.cli.display.tables import money_text
from agent.figures import MINUS, brief_reason, format_figure, stop_text
from agent.observe.health import RunHealth
from agent.web.pages import format_move

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.web.pages import (
    CONTROL_PAGE,
    PAGES,
    Renderer,
    figure_element,
    has_traded_since,
    read_replay,
    runs_of_cycles,
    step_class,
    unbroken_text,
    value_charts,
    weight_bar,
    weight_charts,
)
from agent.web.reach import Reach
from agent.web.sessions import Session
from tests.cli.documents import DOCUMENTS, misfits
from tests.support.dashboards import ADDRESS, CONTROLS, HOSTILE, MARKUP, Served, StaticDocumentCache, figures, golden_document
from tests.support.text import mentions


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as server:
        yield server


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        pytest.param("12345.6789", "money", "12,345.68", id="money"),
        pytest.param("0.125", "money", "0.12", id="half a cent to an even one"),
        pytest.param("0.135", "money", "0.14", id="half a cent from an odd one"),
        pytest.param("9" * 40 + ".999", "money", "10" + ",000" * 13 + ".00", id="money of many digits"),
        pytest.param("-0.004", "money+", "0.00", id="loss below half a cent"),
        pytest.param("5", "money+", "+5.00", id="gain"),
        pytest.param("-5.5", "money+", "−5.50", id="loss"),
        pytest.param("-93.686", "money+", "−93.69", id="loss rounded"),
        pytest.param("-0.001", "money", "0.00", id="value below a cent"),
        pytest.param("0.456662", "cost", "0.46", id="cost"),
        pytest.param("1234.5", "cost", "1,234.50", id="cost of two decimals"),
        pytest.param("0.002004", "cost", "0.0020", id="cost below a cent"),
        pytest.param("0.005", "cost+", "+0.0050", id="half a cent"),
        pytest.param("0.00501", "cost", "0.01", id="more than half a cent"),
        pytest.param("-0.00000012", "cost+", "−0.00000012", id="gain far below a cent"),
        pytest.param("0", "cost+", "0.00", id="no cost"),
        pytest.param("0.000123456789", "amount", "0.000123456", id="amount, truncated"),
        pytest.param("75000", "amount", "75,000", id="whole amount"),
        pytest.param(1234, "percent", "12.34 %", id="percent"),
        pytest.param("-0.03", "size", "0.03", id="size of a loss"),
        pytest.param("1234.5", "size", "1,234.5", id="size"),
        pytest.param(118, "points+", "+1.18 points", id="points"),
        pytest.param(-1, "percent+", "−0.01 %", id="loss of a basis point"),
        pytest.param("0.5", "ratio", "50.00 %", id="ratio"),
        pytest.param(None, "money", "–", id="unknown"),
        pytest.param("1500000", "coins:6", "1.5", id="coins of six decimals"),
        pytest.param("-500000", "coins:6", "−0.5", id="less than a coin below zero"),
        pytest.param(float("nan"), "percent", "–", id="not a number"),
        pytest.param("7", "number", "7", id="number"),
        pytest.param("-0.000123", "rate+", "−0.0123 %", id="rate"),
        pytest.param("2026-11-23T02:18:39Z", "time", "2026-11-23 02:18:39", id="time"),
    ],
)
def test_figures_round_money_and_truncate_amounts(value: Any, form: str, text: str) -> None:
    assert format_figure(value, form) == text


@pytest.mark.parametrize("text", ["-93.681", "-0.001", "-5.5", "93.689", "0", "-1234567.891"])
def test_gain__is_the_same_on_page_and_terminal(text: str) -> None:
    assert format_figure(text, "money+").removeprefix("+").replace(MINUS, "-") == money_text(text)


def test_pages__say_what_is_not_booked_and_count_gas_money(served: Served) -> None:
    documents = served.board.documents
    documents["lots"] |= {"gas_money": documents["lots"]["assets"][0], "not_final": 2}
    documents["pnl"]["all"]["not_final"] = 2
    for page, words in (("/assets", ("gas money included: it shares lots",)), ("/", ())):
        text = served.ask(page)[2].decode()
        assert [text.count(part) for part in ("Not booked yet", *words)] == [1] * (1 + len(words))
    documents["lots"] |= {"gas_money": None, "not_final": 0}
    assert not any(part in served.ask("/assets")[2].decode() for part in ("Not booked yet", "gas money included"))


@pytest.mark.parametrize(
    ("kinds", "mined_since", "words"),
    [
        pytest.param(("approve",), 0, "may still be undone: 1 transaction (approval). Value and profit count", id="approval, in the value"),
        pytest.param(("approve",), 1, "Not booked yet: 1 transaction (approval) after ", id="approval since the value"),
        pytest.param(("approve", "swap", "swap"), 0, "3 transactions (approval, swap). Value", id="purchase"),
        pytest.param(("approve",), None, "be undone: 2 transactions. Value", id="others that are not shown"),
    ],
)
def test_overview__names_the_kinds_of_what_is_not_booked(
    served: Served, kinds: tuple[str, ...], mined_since: int | None, words: str
) -> None:
    documents = served.board.documents
    not_final = len(kinds) if mined_since is not None else len(kinds) + 1
    documents["pnl"]["all"] |= {"not_final": not_final, "mined_since": mined_since or 0}
    step = documents["history"]["steps"][0]
    transaction = {"status": "mined", "hash": "", "nonce": 0, "note": "", "block": 1}
    documents["history"]["steps"][0] = step | {"transactions": [transaction | {"kind": kind} for kind in kinds]}
    assert words in re.sub("<[^>]*>", "", served.ask("/")[2].decode())


def test_the_overview_shows_the_longest_period_that_has_figures(served: Served) -> None:
    pnl = served.board.documents["pnl"]
    served.board.documents["pnl"] = {
        name: document | {"periods": [] if name == "all" else document["periods"]} for name, document in pnl.items()
    }
    status, _, body = served.ask("/")
    assert status == 200
    assert all(words in body.decode() for words in ("Profit this year</dt>", "Costs this year</dt>", "pnl.year.periods.0.profit"))
    served.board.documents["pnl"] = pnl
    assert "Profit since the start</dt>" in served.ask("/")[2].decode()


def test_overview__shows_value_and_profit_of_its_table_s_moment(served: Served) -> None:
    documents = served.board.documents
    assert "pnl.all.value" in {of for of, *_ in figures(served.ask("/")[2].decode())}, "before the chain is read"
    profit = documents["pnl"]["all"]
    series = {name: [*values, "777.5" if "values" in name else 2_000_000_000] for name, values in documents["series"].items()}
    documents["now"] = {
        "pnl": {name: profit | {"value": "777.5", "until": "2026-01-02T03:04:05Z"} for name in documents["pnl"]},
        "series": {**series, "rebalances": documents["series"]["rebalances"]},
    }
    text = served.ask("/")[2].decode()
    [chart] = re.findall('data-value-chart="([^"]+)"', text)
    assert json.loads(unescape(chart))["line"] == [*documents["series"]["values"], "777.5"], "up to the present"
    text_by_path = {of: text for of, _, _, text in figures(text)}
    assert (text_by_path["now.pnl.all.value"], text_by_path["now.pnl.all.until"]) == ("777.50", "2026-01-02 03:04:05")
    assert "now.pnl.all.periods.0.profit" in text_by_path
    assert not any(of.startswith("pnl.") for of in text_by_path), "no figure of another moment"
    assert 'data-until="2026-01-02T03:04:05Z"' in text
    documents["now"] = {"error": "no valuation yet", "raised": None}
    assert "pnl.all.value" in {of for of, *_ in figures(served.ask("/")[2].decode())}
    stored = {name: documents.pop(name) for name in ("pnl", "series")}
    assert "no valuation yet" in served.ask("/")[2].decode()
    documents.update(stored)
    del documents["now"]


def test_the_overview_names_the_paper_run_beside_the_config(served: Served) -> None:
    documents = served.board.documents
    words = "A paper run is beside this config"
    assert words not in served.ask("/")[2].decode()
    documents["paper"] = {"pnl": {"all": documents["pnl"]["all"] | {"value": "777.5"}}}
    text = served.ask("/")[2].decode()
    assert f"{words}, worth " in text
    assert [text for of, _, _, text in figures(text) if of == "paper.pnl.all.value"] == ["777.50"]
    documents["paper"] = {"error": "the ledger has no valuations yet"}
    assert f"{words}: <code>trimtab history <span>--paper</span></code>" in served.ask("/")[2].decode()
    del documents["paper"]


POOLS = [f"0x{number:040x}" for number in range(1, 10)]
REASON = f"nothing to trade; {'; '.join(f'pool {pool}: gas exceeds what it saves' for pool in POOLS)}"
BRIEF_REASON = "nothing to trade; 9 pools: gas exceeds what it saves"


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (REASON, BRIEF_REASON),
        (f"{', '.join(POOLS)} hold no more", "9 addresses hold no more"),
        (f"pool {POOLS[0]}: no code; pool {POOLS[0]}: no code", "pool 0x0000…0001: no code"),
        (f"{POOLS[0]} is not {POOLS[1]}", "0x0000…0001 is not 0x0000…0002"),
        (f"pool {POOLS[0]}: no code; pool {POOLS[1]}: no answer", "pool 0x0000…0001: no code; pool 0x0000…0002: no answer"),
        (f"block 0x{1:064x}; within its bands", f"block 0x{1:064x}; within its bands"),
    ],
    ids=["pools", "list", "twice", "two", "two reasons", "hash"],
)
def test_brief_reason__counts_addresses_of_the_same_reason(reason: str, text: str) -> None:
    assert brief_reason(reason) == text


LONG_REASON = (
    "WBTC at 18 %, target 30 %, is beyond 19-40 %; USDC is above; but nothing to trade of a drift of 556 USDC:"
    f" limits.plan_cost of 50 bps allows no trade; {'; '.join(f'pool {pool}: gas exceeds what it saves' for pool in POOLS)}"
)
LEAD = (
    "WBTC at 18 %, target 30 %, is beyond 19-40 %; but nothing to trade of a drift of 556 USDC: limits.plan_cost of 0.5 % allows no trade"
)


@pytest.mark.parametrize("path", ["/", "/history", "/plan"])
@pytest.mark.parametrize(
    ("reason", "lead"),
    [
        (LONG_REASON, LEAD),
        (REASON, BRIEF_REASON),
        ("within its bands; checked again", "within its bands; checked again"),
        ("refused: kill_switch measured paused, limit not paused", "kill_switch measured paused, limit not paused"),
    ],
    ids=["long", "short with addresses", "short", "refused"],
)
def test_reason__begins_with_its_first_sentence_and_folds_the_rest(
    served: Served, monkeypatch: pytest.MonkeyPatch, path: str, reason: str, lead: str
) -> None:
    documents = served.board.documents
    for document in (documents["status"]["decision"], documents["plan"], documents["history"]["steps"][0]):
        monkeypatch.setitem(document, "reason", reason)
    text = served.ask(path)[2].decode()
    assert {figure_text for of, _, value, figure_text in figures(text) if of.endswith("reason") and value == reason} == {lead}
    folds = re.findall(r'<details id="d-[^"]+"[^>]*><summary>.*?</summary>(.*?)</details>', text, re.S)
    assert any(POOLS[8] in fold for fold in folds) is (POOLS[8] in reason)
    assert POOLS[8] not in re.sub(r"<[^>]*>", "", re.sub(r"</summary>.*?</details>", "", text, flags=re.S))


@pytest.mark.parametrize("kind", ["hold", "rebalance"])
def test_overview__says_once_why_assets_outside_their_bands_stay(served: Served, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    documents = served.board.documents
    holdings = [holding | {"weight_bps": 9_999} if index < 2 else holding for index, holding in enumerate(documents["status"]["holdings"])]
    decision = {"kind": kind, "reason": REASON if kind == "hold" else "outside its band"}
    blocked = [{"symbol": symbol, "address": ADDRESS, "why": f"no pool of {', '.join(POOLS)}", "remedy": "wait"} for symbol in ("A", "B")]
    monkeypatch.setitem(documents, "status", documents["status"] | {"holdings": holdings, "decision": decision, "blocked_exits": blocked})
    monkeypatch.setitem(documents["history"]["steps"][0], "reason", REASON)
    open_html, folded_html = served.ask("/")[2].decode().split('<details id="d-decision">')
    folded_html, rest = folded_html.split("</details>", 1)
    assert POOLS[8] in folded_html
    open_html += rest
    # what a reader sees: without the exact values of the figures
    text = re.sub(r"<[^>]*>", "", open_html)
    assert text.count(BRIEF_REASON) == 1
    assert "Outside their bands: " + HOSTILE.replace("<", "&lt;").replace(">", "&gt;") + ", WBTC." in text
    assert "A, B: no pool of 9 addresses (wait)" in text
    assert POOLS[8] not in text


@pytest.mark.parametrize("prefix", ["", "refused: "], ids=["guard", "outcome"])
def test_overview__says_a_refusal_once(served: Served, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    documents = served.board.documents
    why = "max_live_value: measured 3,413 USDC, limit 3,000 USDC"
    holdings = [holding | {"weight_bps": 9_999} for holding in documents["status"]["holdings"]]
    decision = {"kind": "rebalance", "reason": "outside its band"}
    monkeypatch.setitem(documents, "status", documents["status"] | {"holdings": holdings, "decision": decision})
    monkeypatch.setitem(documents["history"]["steps"][0], "outcome", "refused")
    monkeypatch.setitem(documents["history"]["steps"][0], "reason", prefix + why)
    text = re.sub(r"<[^>]*>", "", served.ask("/")[2].decode())
    assert "Outside their bands" in text
    assert text.count(why) == 1
    assert "refused: refused" not in text


def test_history__refusals_of_one_reason_in_a_row_are_one_row() -> None:
    reasons = ("refused: max_live_value measured 3,413 USDC", "refused: max_live_value measured 3,201 USDC", "refused: turnover")
    steps = [{"outcome": "refused", "reason": reason} for reason in reasons] + [{"outcome": "failed", "reason": "refused: turnover"}] * 2
    assert runs_of_cycles(steps, range(len(steps))) == [[0, 1], [2], [3], [4]]


@pytest.mark.parametrize(
    ("count", "place"), [pytest.param(1, "in the newest cycle", id="one"), pytest.param(2, "among the newest 2 cycles", id="two")]
)
def test_history__without_a_trade_says_in_how_many_cycles(served: Served, monkeypatch: pytest.MonkeyPatch, count: int, place: str) -> None:
    documents = served.board.documents
    holds = [{**documents["history"]["steps"][0], "outcome": "hold", "transactions": [], "cost": None}] * count
    monkeypatch.setitem(documents["history"], "steps", holds)
    assert f"None {place}." in served.ask("/history")[2].decode()


def test_settings__sections_are_folded_and_an_edit_is_not(served: Served) -> None:
    text = served.ask("/settings")[2].decode().split("<main")[1].split("</main>")[0]
    [(mark, title, content)] = re.findall(r'<details id="([a-z0-9-]+)"><summary><h2[^>]*>([^<]*)</h2></summary>(.*?)</details>', text, re.S)
    assert (mark, title) == ("d-s0", "Limits")
    assert "settings.sections.0.settings.0.value" in content
    assert "settings.assets.0.target_bps" in text.replace(content, "")
    assert 'id="b-edit-limits"' in text.replace(content, "")


def test_figure__no_line_begins_with_its_percent_sign() -> None:
    assert ">left 9-11\u00a0% at 9.8\u00a0%</data>" in figure_element({"why": "left 9-11 % at 9.8 %"}, "why")
    assert ">12.34\u00a0%</data>" in figure_element({"share": 1_234}, "share", "percent")
    assert ' value="5 %" ' in figure_element({"limit": "5 %"}, "limit"), "the exact value is unchanged"


def test_percentages__have_one_form_on_the_pages() -> None:
    assert unbroken_text("plan cost 0.5%, 60%; 30 %") == "plan cost 0.5\u00a0%, 60\u00a0%; 30\u00a0%"
    assert unbroken_text("a band of 10%rel or 5%abs, %, a%20b") == "a band of 10%rel or 5%abs, %, a%20b"


def test_allocation_bars__have_one_scale(served: Served) -> None:
    status = golden_document("25-status")
    text = Renderer(Reach()).render_page(PAGES[0], {**served.board.documents, "status": status}, {}, 1)
    places = [float(x) for x in re.findall(r'<rect class="target" x="([0-9.]+)"', text)]
    targets = [holding["target_bps"] for holding in status["holdings"]]
    assert len(set(targets)) > 1
    [scale] = {round(target_bps / place) for target_bps, place in zip(targets, places, strict=True)}
    assert 0 < scale < 100, "and the widest takes the whole bar"


def test_orders_of_an_asset_without_any__are_a_dash_for_readers(served: Served) -> None:
    documents = {**served.board.documents, "orders": {"orders": []}}
    sessions = (None, Session(1, "anna", False, 0, 0))
    read, editable = (Renderer(Reach()).render_page(PAGES[0], documents, {}, 1, session) for session in sessions)
    assets = len(documents["status"]["holdings"])
    assert read.count('<td class="n at none">–</td></tr>') == assets
    assert editable.count('<td class="n at none">–</td></tr>') == 1


def test_overview__has_no_words_for_prices_that_are_not_there(served: Served) -> None:
    status = golden_document("25-status")
    alerts = golden_document("09-alerts")
    for asset in alerts["assets"]:
        asset |= {"alert_low": None, "to_low_bps": None, "alert_high": None, "to_high_bps": None}
    texts = [
        Renderer(Reach()).render_page(PAGES[0], {**served.board.documents, "status": status, "alerts": document}, {}, 1)
        for document in (golden_document("09-alerts"), alerts)
    ]
    assert ["leaves its band </span>below" in text for text in texts] == [True, False]


HEALTHY_RUN = {
    "ok": True,
    "state": "running",
    "cycles": 1,
    "paused": False,
    "sends": True,
    "reasons": [],
    "next_cycle": "2026-11-29T18:08:00Z",
}


def overview_text(served: Served, outcome: str, **run: Any) -> str:
    """The plain text of the Overview after a cycle of this outcome, whose run decides to rebalance."""
    history = golden_document("26-history")
    history["steps"][0] |= {"outcome": outcome, "reason": "refused by daily_turnover"}
    status = {**golden_document("25-status"), "decision": {"kind": "rebalance", "reason": "WETH is outside"}}
    documents = {**served.board.documents, "status": status, "history": history, "run": HEALTHY_RUN | run}
    return re.sub("<[^>]*>", "", Renderer(Reach()).render_page(PAGES[0], documents, {}, 1))


def test_overview__says_when_the_next_check_is(served: Served) -> None:
    assert "1 check so far, the next at 2026-11-29 18:08:00 UTC." in overview_text(served, "hold")
    assert "next check" not in overview_text(served, "hold", next_cycle=None)


@pytest.mark.parametrize(
    ("outcome", "run", "heading"),
    [
        ("refused", {}, "Next decision: rebalance, refused at the last check"),
        ("done", {}, "Next decision: rebalance"),
        ("done", {"ok": False, "state": "stopped", "next_cycle": None}, "Next decision: rebalance, not carried out: no run goes on"),
    ],
    ids=["refused", "carried out", "stopped"],
)
def test_heading_of_the_decision__says_what_prevents_it(served: Served, outcome: str, run: dict[str, Any], heading: str) -> None:
    text = overview_text(served, outcome, **run)
    assert heading in text.splitlines()
    assert ("UTC: refused by daily_turnover" in text.partition("Details")[0]) is (outcome == "refused")
    assert ("A limit that was changed since then counts from the next check." in text) is (outcome == "refused")


@pytest.mark.parametrize(
    ("is_paused", "state", "heading"),
    [
        (False, "running", "hold"),
        (True, "running", "none while paused"),
        (False, "stopped", "none: stopped"),
        (False, "gone", "none: no run goes on"),
    ],
    ids=["runs", "paused", "stopped", "gone"],
)
def test_heading_of_a_hold__is_none_where_none_decides(served: Served, is_paused: bool, state: str, heading: str) -> None:
    pause = {"paused": is_paused, "pause_reason": "lunch", "pause_hard": False, "pause_signed": []}
    status = {**golden_document("25-status"), "decision": {"kind": "hold", "reason": "all within their ranges"}}
    run = {**HEALTHY_RUN, "state": state, "ok": state == "running", "paused": is_paused, "next_cycle": None}
    documents = {**served.board.documents, "status": status, "pause": pause, "run": run}
    text = re.sub("<[^>]*>", "", Renderer(Reach()).render_page(PAGES[0], documents, {}, 1))
    assert f"Next decision: {heading}" in text.splitlines()
    assert ("running, paused; " in text, "running, healthy; " in text) == (is_paused, state == "running" and not is_paused)


@pytest.mark.parametrize("path", ["/alerts", "/assets"])
@pytest.mark.parametrize(
    ("on_paper", "heading"), [(False, "Alert prices"), (True, "Prices at which an asset leaves its band")], ids=["live", "paper"]
)
def test_alert_prices__are_those_of_bands_where_none_is_sent(served: Served, path: str, on_paper: bool, heading: str) -> None:
    [page] = [page for page in PAGES if page.path == path]
    documents = {**served.board.documents, "alerts": {**golden_document("09-alerts"), "targets": []}}
    text = Renderer(Reach(on_paper=on_paper)).render_page(page, documents, {}, 1)
    assert re.findall('<h2 id="t-(?:levels|alerts)">(.*?)</h2>', text) == [heading]
    if path == "/alerts":
        where = "The set-up asks for one, on its page Cash and alerts" if on_paper else "A login that may control adds one on this page"
        assert f"No alert targets configured. {where}" in text


@pytest.mark.parametrize("is_served", [True, False], ids=["served", "ended"])
def test_paper_run_that_ended__has_no_button_that_needs_it(served: Served, is_served: bool) -> None:
    run = HEALTHY_RUN if is_served else {**HEALTHY_RUN, "ok": False, "state": "stopped", "next_cycle": None}
    controls = {**CONTROLS, "waiting": None, "controls": [], "served": is_served}
    documents = {**served.board.documents, "run": run, "controls": controls, "pause": {"paused": False}}
    plan_page = next(page for page in PAGES if page.path == "/plan")
    for page, buttons in {PAGES[0]: ("b-rebalance", "b-stop"), CONTROL_PAGE: ("b-rebalance", "b-stop"), plan_page: ("b-review",)}.items():
        text = Renderer(Reach(on_paper=True)).render_page(page, documents, {}, 1, Session(1, "set-up", False, 0, 0))
        for name in buttons:
            [button] = re.findall(f'<button id="{name}"[^>]*>', text)
            assert ("disabled" in button) is not is_served
        assert ('<a href="/setup/done">start it again</a>' in text) is not is_served
        assert ('data-live="Live: ' in text) is is_served
        assert ("to send, review a plan below" in text) is (is_served and page is plan_page)


@pytest.mark.parametrize("page", [*PAGES, CONTROL_PAGE], ids=[page.path for page in (*PAGES, CONTROL_PAGE)])
def test_paper__shows_no_button_that_a_paper_run_never_reads(served: Served, page: Any) -> None:
    controls = {**CONTROLS, "waiting": None, "controls": [], "served": True}
    documents = {**served.board.documents, "run": HEALTHY_RUN, "controls": controls, "pause": {"paused": False}}
    text = Renderer(Reach(on_paper=True)).render_page(page, documents, {}, 1, Session(1, "set-up", False, 0, 0))
    assert re.findall("<button[^>]* disabled[^>]*>", text) == []


@pytest.mark.parametrize("page", [*PAGES, CONTROL_PAGE], ids=[page.path for page in (*PAGES, CONTROL_PAGE)])
@pytest.mark.parametrize("state", ["running", "stopped", "failed", "gone"])
def test_run_that_ended__is_said_above_every_page_as_on_the_overview(served: Served, page: Any, state: str) -> None:
    run = HEALTHY_RUN if state == "running" else {**HEALTHY_RUN, "ok": False, "state": state, "reasons": ["the run was stopped"]}
    text = Renderer(Reach(on_paper=True)).render_page(
        page, {**served.board.documents, "run": run}, {}, 1, Session(1, "set-up", False, 0, 0)
    )
    notices = re.findall(r'<p class="state (\w+)">Run:', text)
    assert notices == (
        [] if state == "running" and page.path != "/" else ["soft" if state == "running" else "note" if state == "stopped" else "alarm"]
    )
    assert ("The run was stopped" in text or "the run was stopped" in text) is (state != "running")


@pytest.mark.parametrize(("path", "name"), [("/alerts", "t-levels"), ("/assets", "t-alerts")])
@pytest.mark.parametrize("has_levels", [True, False])
def test_alert_prices__of_a_check_without_bands_are_no_empty_table(served: Served, path: str, name: str, has_levels: bool) -> None:
    alerts = golden_document("09-alerts")
    documents = {**served.board.documents, "alerts": alerts if has_levels else {**alerts, "assets": []}}
    [page] = [page for page in PAGES if page.path == path]
    text = Renderer(Reach()).render_page(page, documents, {}, 1)
    section = text.partition(f'id="{name}"')[2].partition("</section>")[0]
    assert ("<table>" in section) is has_levels
    assert ("None now: the newest check ended before it looked at bands." in section) is not has_levels


@pytest.mark.parametrize(("outcome", "is_linked"), [("hold", True), ("done", False), ("refused", False)])
def test_control__that_traded_nothing_leads_to_the_history(served: Served, outcome: str, is_linked: bool) -> None:
    control = {**CONTROLS["controls"][0], "reason": "all within", "result": [{"name": "outcome", "value": outcome}]}
    documents = {**served.board.documents, "controls": {**CONTROLS, "controls": [control]}}
    text = Renderer(Reach()).render_page(CONTROL_PAGE, documents, {}, 1, Session(1, "anna", False, 0, 0))
    assert ('<a href="/history">History</a>' in text) is is_linked


@pytest.mark.parametrize(("page", "name"), [(PAGES[0], "rebalance"), (CONTROL_PAGE, "rebalance"), (PAGES[7], "review")])
def test_rebalance__is_off_while_paused_and_says_so(served: Served, page: Any, name: str) -> None:
    documents = {**served.board.documents, "controls": {**CONTROLS, "controls": []}, "pause": {**RUNNING_PAUSE, "paused": True}}
    text = Renderer(Reach()).render_page(page, documents, {}, 1, Session(1, "anna", False, 0, 0))
    [attributes] = re.findall(f'<button id="b-{name}"([^>]*)>', text)
    assert "disabled" in attributes
    assert "Paused: a rebalance can be planned after Resume." in text
    assert ('<a href="/controls">Resume on the page Controls</a>' in text) is (page is PAGES[7])


@pytest.mark.parametrize(("kind", "css_class"), [("hold", "quiet"), ("halt", "quiet"), ("rebalance", "tint"), ("adjustfutures", "tint")])
def test_rebalance_now__is_highlighted_where_something_is_due(served: Served, kind: str, css_class: str) -> None:
    status = {**golden_document("25-status"), "decision": {"kind": kind, "reason": "all within their bands"}}
    documents = {**served.board.documents, "status": status, "controls": {**CONTROLS, "controls": []}, "pause": RUNNING_PAUSE}
    text = Renderer(Reach()).render_page(PAGES[0], documents, {}, 1, Session(1, "anna", False, 0, 0))
    assert f'<button id="b-rebalance" class="{css_class}"' in text


@pytest.mark.parametrize("on_paper", [True, False])
@pytest.mark.parametrize("has_targets", [True, False])
def test_alerts_on_paper__are_said_not_to_be_sent_where_targets_are(served: Served, on_paper: bool, has_targets: bool) -> None:
    documents = dict(served.board.documents)
    if not has_targets:
        documents["alerts"] = {**documents["alerts"], "targets": []}
    alerts_page = next(page for page in PAGES if page.path == "/alerts")
    text = Renderer(Reach(on_paper=on_paper)).render_page(alerts_page, documents, {}, 1, Session(1, "set-up", False, 0, 0))
    section = text.partition('id="t-targets"')[2].partition("</section>")[0]
    assert ("Paper trading sends no alerts" in section) is on_paper
    assert ('href="/setup/done#try"' in section) is on_paper


@pytest.mark.parametrize("on_paper", [True, False])
def test_alerts_at_a_price__stand_on_their_page_with_their_stage(served: Served, on_paper: bool) -> None:
    document = golden_document("47-orders")
    stop = document["orders"][0]
    fired = {"kind": "alert_above", "stage": "fired", "level": "60000", "level_now": None, "next_stage": None}
    fired |= {"subject": "WBTC", "fired_at": "60123.45", "since": "2026-12-01 09:00:00", "since_s": 1}
    waiting = {"kind": "alert_below", "subject": "LINK", "level_now": "12.5"}
    alerts_page = next(page for page in PAGES if page.path == "/alerts")
    for orders in ([stop, {**stop, **fired}, {**stop, **waiting}], [stop]):
        documents = {**served.board.documents, "orders": {**document, "orders": orders}}
        html = Renderer(Reach(on_paper=on_paper)).render_page(alerts_page, documents, {}, 1, Session(1, "set-up", False, 0, 0))
        text = without_tags(html.partition('id="t-set"')[2].partition("</section>")[0])
        assert mentions(text, "WBTC", "fired", "60,000.00", "60,123.45", "LINK", "(12.5000)") is (len(orders) > 1)
        assert "stop" not in text


@pytest.mark.parametrize("is_served", [True, False], ids=["served", "ended"])
@pytest.mark.parametrize("path", ["/", "/plan"])
@pytest.mark.parametrize("reason", ["all within their ranges", LONG_REASON], ids=["short", "folded"])
def test_decision__is_checked_again_while_a_run_goes_on(served: Served, path: str, is_served: bool, reason: str) -> None:
    run = HEALTHY_RUN if is_served else {**HEALTHY_RUN, "ok": False, "state": "stopped", "next_cycle": None}
    decision = {"kind": "hold", "reason": f"{reason}; checked again in the next cycle"}
    documents = {**served.board.documents, "run": run}
    documents["status"] = {**golden_document("25-status"), "decision": decision}
    documents["plan"] = {**documents["plan"], "reason": decision["reason"]}
    [page] = [page for page in PAGES if page.path == path]
    text = Renderer(Reach()).render_page(page, documents, {}, 1)
    assert reason.partition(";")[0] in text.replace("\u00a0", " ")
    assert ("checked again" in text) is is_served


@pytest.mark.parametrize(
    ("on_paper", "state", "changes", "is_said"),
    [
        pytest.param(True, "running", ["+ portfolio.assets.0.target = 40%"], True, id="changed"),
        pytest.param(True, "running", [], False, id="unchanged"),
        pytest.param(True, "stopped", ["+ portfolio.assets.0.target = 40%"], False, id="ended"),
        pytest.param(False, "running", ["+ portfolio.assets.0.target = 40%"], False, id="live"),
    ],
)
def test_config_changed_since_the_start__is_said_on_paper(
    served: Served, on_paper: bool, state: str, changes: list[str], is_said: bool
) -> None:
    run = {**HEALTHY_RUN, "state": state, "ok": state == "running"}
    documents = {**served.board.documents, "run": run, "settings": {**served.board.documents["settings"], "changes_since_start": changes}}
    documents["status"] = {**golden_document("25-status"), "decision": {"kind": "rebalance", "reason": "WETH is due"}}
    for page in (PAGES[0], PAGES[7]):
        text = Renderer(Reach(on_paper=on_paper)).render_page(page, documents, {}, 1, Session(1, "set-up", False, 0, 0))
        assert text.count("The config was changed since the paper run began") == is_said
    overview = Renderer(Reach(on_paper=on_paper)).render_page(PAGES[0], documents, {}, 1, Session(1, "set-up", False, 0, 0))
    assert ("WETH is due" in overview) is not is_said
    assert ("Next decision: by the config before its change" in overview) is is_said


def test_paper_run_that_starts_or_ends__is_neither_running_nor_gone(served: Served) -> None:
    """Its report says that it runs, and nobody takes controls."""
    controls = {**CONTROLS, "waiting": None, "controls": [], "served": False}
    documents = {**served.board.documents, "run": {**HEALTHY_RUN, "cycles": 0}, "controls": controls, "pause": {"paused": False}}
    for page, button in ((PAGES[0], "b-rebalance"), (CONTROL_PAGE, "b-stop"), (PAGES[7], "b-review")):
        text = Renderer(Reach(on_paper=True)).render_page(page, documents, {}, 1, Session(1, "set-up", False, 0, 0))
        assert "running, healthy" not in re.sub("<[^>]*>", "", text)
        assert "No paper run goes on" not in text
        [attributes] = re.findall(f'<button id="{button}"([^>]*)>', text)
        assert "disabled" in attributes
    overview = Renderer(Reach(on_paper=True)).render_page(PAGES[0], documents, {}, 1, Session(1, "set-up", False, 0, 0))
    assert "The paper run starts or ends" in re.sub("<[^>]*>", "", overview)


@pytest.mark.parametrize("page", [PAGES[0], CONTROL_PAGE], ids=["overview", "controls"])
@pytest.mark.parametrize(
    ("kind", "paused", "is_read_only", "is_said"),
    [("hold", False, False, True), ("rebalance", False, False, False), ("hold", True, False, False), ("hold", False, True, False)],
    ids=["hold", "rebalance", "paused", "read-only"],
)
def test_rebalance_now__says_before_it_is_pressed_that_the_trigger_holds(
    served: Served, page: Any, kind: str, paused: bool, is_read_only: bool, is_said: bool
) -> None:
    status = {**golden_document("25-status"), "decision": {"kind": kind, "reason": "all within their bands"}}
    pause = {"paused": paused, "pause_reason": "", "pause_hard": False, "pause_signed": []}
    documents = {**served.board.documents, "status": status, "pause": pause, "controls": {**CONTROLS, "controls": []}}
    text = Renderer(Reach()).render_page(page, documents, {}, 1, Session(1, "anna", is_read_only, 0, 0))
    assert ("asks for; nothing is sent before you confirm the plan. At block" in text) is is_said


@pytest.mark.parametrize("is_served", [True, False], ids=["served", "not served"])
@pytest.mark.parametrize("state", ["none", "stopped"])
@pytest.mark.parametrize("has_paper_run", [True, False], ids=["started", "not started"])
def test_paper_run_without_a_report_of_its_own__starts_if_its_process_is_there(
    served: Served, state: str, has_paper_run: bool, is_served: bool
) -> None:
    run = {**HEALTHY_RUN, "ok": False, "state": state, "reasons": ["no continuous run reports here"], "next_cycle": None}
    documents = {
        **served.board.documents,
        "run": run,
        "controls": {**CONTROLS, "waiting": None, "controls": [], "served": is_served},
        "pause": {"paused": False},
        "pnl": {"all": {**golden_document("28-pnl"), "periods": [], "why_empty": "the ledger is empty: run trimtab run first"}},
    }
    documents.pop("now", None)
    reach = Reach(on_paper=True, has_paper_run=lambda: has_paper_run)
    overview = Renderer(reach).render_page(PAGES[0], documents, {}, 1, Session(1, "set-up", False, 0, 0))
    text = re.sub("<[^>]*>", "", overview)
    for words in ("no continuous run reports here", "the ledger is empty"):
        assert (words in text) is not has_paper_run
    assert ("No paper run goes on" in text) is not (has_paper_run or is_served)
    assert "No run takes controls now" not in text
    assert ("The paper run starts or ends" in text) is has_paper_run
    assert ("Next decision: none: stopped" in text) is (state == "stopped" and not has_paper_run)


@pytest.mark.parametrize(
    ("on_paper", "stage", "since", "is_said"),
    [
        pytest.param(True, "waiting", None, True, id="waiting on paper"),
        pytest.param(True, "waiting", "2026-12-01 09:00:00", False, id="armed on paper by a command"),
        pytest.param(True, "armed", None, False, id="armed on paper"),
        pytest.param(False, "waiting", None, False, id="waiting live"),
    ],
)
def test_waiting_order_on_paper__says_how_it_is_armed(served: Served, on_paper: bool, stage: str, since: str | None, is_said: bool) -> None:
    orders = golden_document("47-orders")
    changed_orders = [{**order, "stage": stage, "since": since} for order in orders["orders"]]
    documents = {**served.board.documents, "orders": {**orders, "orders": changed_orders}}
    for page in (PAGES[0], next(page for page in PAGES if page.path == "/assets")):
        text = Renderer(Reach(on_paper=on_paper)).render_page(page, documents, {}, 1, Session(1, "set-up", False, 0, 0))
        assert ("A paper run reads the config only when it starts: an order that was set since" in text) is is_said


@pytest.mark.parametrize("template", sorted((WEB_FOLDER / "templates").glob("*.html")), ids=lambda path: path.stem)
def test_an_option_of_a_command__stays_on_its_line(template: Path) -> None:
    for code in re.findall("<code[^>]*>(.*?)</code>", template.read_text(encoding="utf-8")):
        assert "command(" in code or not re.search("(^| )--", code), f"{code}: a line may end between -- and its word"


@pytest.mark.parametrize("path", ["/", "/assets"])
def test_stage_of_an_order__reads_alike_wherever_it_stands(served: Served, path: str) -> None:
    orders = golden_document("47-orders")
    symbol_held = served.board.documents["status"]["holdings"][0]["symbol"]
    order = {**orders["orders"][0], "subject": symbol_held, "stage": "fired", "next_stage": "done", "since": "2026-12-01 09:00:00"}
    documents = {**served.board.documents, "orders": {**orders, "orders": [order]}}
    page = next(page for page in PAGES if page.path == path)
    text = re.sub("<[^>]*>", "", Renderer(Reach()).render_page(page, documents, {}, 1))
    assert "fired, next cycle: done" in text


def test_level_in_percent__says_from_which_price_and_how_far_it_is(served: Served) -> None:
    orders = golden_document("47-orders")
    armed = {"subject": served.board.documents["status"]["holdings"][0]["symbol"], "stage": "armed", "since": "2026-12-01 09:00:00"}
    levels = {
        "terms": "20 %",
        "level": "2400",
        "level_now": None,
        "next_stage": None,
        "distance_bps": -3_846,
        "basis": "3000",
        "highest": "3100",
    }
    rows = [{**orders["orders"][0], **armed, **levels, "kind": kind} for kind in ("stop_loss", "trailing_stop")]
    documents = {**served.board.documents, "orders": {**orders, "orders": rows}}
    for path, texts in (
        ("/assets", ("20 % from 3,000.00", "20 % from 3,100.00", "−38.46 %", "not from what was paid", "orders arm SYMBOL arms it anew")),
        ("/", ("stop loss 2,400.00 −38.46 %, armed",)),
    ):
        page = next(page for page in PAGES if page.path == path)
        text = without_tags(Renderer(Reach()).render_page(page, documents, {}, 1))
        for expected in texts:
            assert mentions(text, expected)


def without_tags(html: str) -> str:
    return " ".join(re.sub("<[^>]*>", "", html).replace("\u00a0", " ").split())


@pytest.mark.parametrize(("on_paper", "said"), [(True, "the paper run has too"), (False, "Whether the agent runs is not known here")])
def test_server_that_does_not_respond__says_what_became_of_the_run(served: Served, on_paper: bool, said: str) -> None:
    reach = Reach(on_paper=on_paper, complete_hints=lambda text: text.replace("serve", "serve --config own.toml"))
    for banner in ("", "Practice"):
        page_reach = replace(reach, banner=banner)
        text = Renderer(page_reach).render_page(PAGES[0], served.board.documents, {}, 1, Session(1, "anna", False, 0, 0))
        gone = text.partition(' data-gone="')[2].partition('"')[0]
        assert said in gone
        assert ("trimtab serve --config own.toml --setup" in gone) is on_paper
        assert ("a new paper ledger" in gone) is (on_paper and banner != "")


@pytest.mark.parametrize("path", ["/", "/assets", "/settings"])
def test_targets_that_differ_from_the_config__say_why(served: Served, path: str) -> None:
    why = "WETH has been out since today: stop_loss of WETH is done; trimtab orders arm WETH readmits it"
    status = {**golden_document("25-status"), "target_reasons": [why]}
    page = next(page for page in PAGES if page.path == path)
    text = Renderer(Reach()).render_page(page, {**served.board.documents, "status": status}, {}, 1)
    assert f"Targets: {why}." in text


def test_commands_of_a_paper_page__name_its_portfolio(served: Served) -> None:
    """In texts of documents and of the page, those of the live one alike."""
    why = "WETH has been out since today: stop_loss of WETH is done; trimtab orders arm WETH readmits it"
    status = {**golden_document("25-status"), "target_reasons": [why]}
    status["decision"] = {**status["decision"], "reason": why}
    history = golden_document("26-history")
    history["steps"][0]["reason"] = why
    history["values"] = []
    documents = {**served.board.documents, "status": status, "history": history}
    reach = Reach(on_paper=True, complete_hints=lambda text: re.sub("trimtab (orders arm|books lots|export)", r"\g<0> --paper", text))
    for path, commands in {"/": ("orders arm",), "/history": ("orders arm",), "/assets": ("orders arm", "books lots", "export")}.items():
        page = next(page for page in PAGES if page.path == path)
        for present_reach in (reach, Reach()):
            html = Renderer(present_reach).render_page(page, documents, {}, 1, Session(1, "set-up", False, 0, 0))
            assert ("export <span>--paper</span></code>" in html) is (path == "/assets" and present_reach is reach)
            text = without_tags(html)
            for command in commands:
                assert {bool(found) for found in re.findall(f"trimtab {command}( --paper)?", text)} == {present_reach is reach}


def test_state_of_the_run__stands_apart_from_its_name(served: Served) -> None:
    run = {"ok": True, "state": "running", "paused": False, "cycles": 3, "next_cycle": None, "sends": True, "reasons": []}
    text = re.sub("<[^>]*>", "", Renderer(Reach()).render_page(PAGES[0], {**served.board.documents, "run": run}, {}, 1))
    assert re.search(r"Run:\s+running, healthy; 3 checks so far", text)


def test_profit_on_paper__says_what_pays_the_gas(served: Served) -> None:
    profit = {**golden_document("28-pnl"), "gas_money": "3000"}
    documents = {**served.board.documents, "pnl": {"all": profit}}
    documents.pop("now", None)
    session = Session(1, "set-up", False, 0, 0)
    for is_on_paper in (True, False):
        text = re.sub("<[^>]*>", "", Renderer(Reach(on_paper=is_on_paper)).render_page(PAGES[0], documents, {}, 1, session))
        assert text.count("Beside the value is gas money, native coin worth 3,000.00 ") == 1
        assert (text.index("Beside the value") < text.index("Next decision")) is is_on_paper


def test_profit__is_gains_of_lots_and_what_is_none(served: Served) -> None:
    profit = golden_document("28-pnl")
    profit |= {"unrealised": "-311.58", "periods": [profit["periods"][0] | {"profit": "-70.43", "realised": "241.88"}]}
    documents = {**served.board.documents, "pnl": {"all": profit}}
    documents.pop("now", None)
    text = re.sub("<[^>]*>", "", Renderer(Reach()).render_page(PAGES[0], documents, {}, 1, None))
    assert "realised +241.88 and unrealised −311.58; −0.73 is no gain of a lot" in text


@pytest.mark.parametrize(("is_running", "says"), [(True, "under way"), (False, "unfinished")], ids=["running", "ended"])
def test_last_rebalance__is_under_way_while_its_run_goes_on(served: Served, is_running: bool, says: str) -> None:
    history = golden_document("26-history")
    history["steps"] = history["steps"][1:]
    history["steps"][0] |= {"outcome": "unfinished", "reason": "no outcome is stored"}
    run = {
        "ok": is_running,
        "state": "running" if is_running else "gone",
        "cycles": 1,
        "paused": False,
        "sends": True,
        "reasons": [],
        "next_cycle": None,
    }
    documents = {**served.board.documents, "history": history, "run": run}
    text = Renderer(Reach()).render_page(PAGES[0], documents, {}, 1)
    [outcome] = re.findall(r'<th scope="row">Outcome</th><td class="text">(.*?)</td>', text)
    assert says in outcome
    assert ("no outcome is stored" in outcome) is not is_running
    assert (f">since {history['steps'][0]['time']} UTC<" in outcome) is is_running
    assert ("no outcome is stored" in Renderer(Reach()).render_page(PAGES[1], documents, {}, 1)) is not is_running


@pytest.mark.parametrize(
    ("reach", "outcomes", "paused", "is_said"),
    [
        (Reach(on_paper=True), (), False, True),
        (Reach(on_paper=True), ("approve",), False, True),
        (Reach(on_paper=True), ("",), False, False),
        (Reach(on_paper=True), ("swap",), False, False),
        (Reach(on_paper=True), (), True, False),
        (Reach(), (), False, False),
    ],
    ids=["no step", "approved", "a hold", "bought", "paused", "not on paper"],
)
def test_first_purchase_on_paper__is_said_while_it_goes_on(
    served: Served, reach: Reach, outcomes: tuple[str, ...], paused: bool, is_said: bool
) -> None:
    step = golden_document("26-history")["steps"][1]
    assert step["execution"]
    sent = {"status": "final", "block": 1, "note": "", "hash": ""}
    steps = [
        {**step, "transactions": [{**sent, "kind": kind}] if kind else [], "execution": step["execution"] if kind == "swap" else None}
        for kind in outcomes
    ]
    run = {"ok": True, "state": "running", "cycles": 0, "paused": paused, "sends": True, "reasons": [], "next_cycle": None}
    profit = {**golden_document("28-pnl"), "periods": [], "why_empty": "the ledger is empty: run trimtab run first"}
    documents = {
        **served.board.documents,
        "pnl": {"all": profit},
        "history": {**golden_document("26-history"), "steps": steps},
        "run": run,
        "pause": {"paused": paused, "pause_reason": "", "pause_hard": False, "pause_signed": []},
    }
    text = Renderer(reach).render_page(PAGES[0], documents, {}, 1, Session(1, "set-up", False, 0, 0))
    assert ("makes its first purchase" in text) is is_said
    assert ("the ledger is empty" in text) is not is_said


def test_banner_of_a_pause__names_what_others_can_execute(served: Served) -> None:
    pause = {"paused": True, "pause_reason": "lunch", "pause_hard": False, "pause_signed": ["signatures of <i7>: 2"]}
    text = Renderer(Reach()).render_page(PAGES[0], {**served.board.documents, "pause": pause}, {}, 1)
    assert "Reason" not in Renderer(Reach()).render_page(
        PAGES[0], {**served.board.documents, "pause": {**pause, "pause_reason": ""}}, {}, 1
    )
    assert "Paused: nothing is sent; but signatures of &lt;i7&gt;: 2. Reason: lunch</p>" in text
    hard_pause = {**served.board.documents, "pause": {**pause, "pause_hard": True}}
    assert "Paused (hard): only rejections, cancellations" in Renderer(Reach()).render_page(PAGES[0], hard_pause, {}, 1)


INFLOWS = [
    {"time": "2026-01-01T00:00:00Z", "value": "250.5", "index": 3},
    {"time": "2026-01-02T00:00:00Z", "value": "-50", "index": 9},
]


def test_chart_and_history__show_deposits_and_withdrawals(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = served.board.documents
    assert "Deposits and withdrawals" not in served.ask("/history")[2].decode()
    monkeypatch.setitem(documents, "series", documents["series"] | {"inflows": INFLOWS})
    overview = served.ask("/")[2].decode()
    [chart] = re.findall('data-value-chart="([^"]+)"', overview)
    assert json.loads(unescape(chart))["inflows"] == [[3, "250.5"], [9, "-50"]]
    for words in ("deposits and withdrawals: 2", "dots: deposits and withdrawals"):
        assert words in overview
    rows = re.findall('<tr data-step="transfer">(.*?)</tr>', served.ask("/history")[2].decode())
    assert ["+250.50" in row for row in rows] == [False, True], "newest first"
    assert ["Withdrawn or set aside" in row for row in rows] == [True, False]
    assert "in a row for each part if some of it is sold first" in served.ask("/history")[2].decode()
    monkeypatch.setitem(
        documents, "series", documents["series"] | {"inflows": [{**INFLOWS[0], "value": str(value)} for value in range(1, 100)]}
    )
    values = [text for of, _, _, text in figures(served.ask("/history")[2].decode()) if re.fullmatch(r"series.inflows.\d+.value", of)]
    assert (len(values), values[0], values[-1]) == (40, "+99.00", "+60.00")


def test_overview__says_what_is_set_aside(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "Set aside for withdrawals"
    assert words not in served.ask("/")[2].decode()
    holding = served.board.documents["status"]["holdings"][0]
    aside = [{"withdrawal": 1, "symbol": holding["symbol"], "raw": str(20 * 10 ** holding["decimals"])}]
    monkeypatch.setitem(served.board.documents, "status", served.board.documents["status"] | {"set_aside": aside})
    text = served.ask("/")[2].decode()
    assert words in text
    assert "withdraw <span>--release</span> 1</code>" in text
    assert [text for of, _, _, text in figures(text) if of == "status.set_aside.0.raw"] == ["20"]


STEP = golden_document("26-history")["steps"][1]
TRADE = {"kind": "swap", "status": "final", "block": 100, "note": "", "hash": "", "nonce": 1}


@pytest.mark.parametrize(
    ("transaction", "block", "is_later"),
    [
        pytest.param(TRADE, 99, True, id="after it"),
        pytest.param(TRADE, 100, False, id="in its block"),
        pytest.param({**TRADE, "kind": "approve"}, 99, False, id="no trade"),
        pytest.param({**TRADE, "block": None}, 99, False, id="in no block"),
        pytest.param(TRADE, None, False, id="without a block"),
    ],
)
def test_trade_since__is_one_in_a_later_block(transaction: dict[str, Any], block: int | None, is_later: bool) -> None:
    assert has_traded_since([{**STEP, "transactions": [transaction]}], block) is is_later


@pytest.mark.parametrize(
    ("path", "block", "words", "unlisted_words"),
    [
        pytest.param("/", 100, "of before", "The agent has traded since block", id="overview, not since"),
        pytest.param("/", 101, "The agent has traded since block", "of before", id="overview, traded since"),
        pytest.param("/plan", 100, "Weights after", "Reading. The figures", id="plan, not since"),
        pytest.param("/plan", 101, "Reading. The figures", "Weights after", id="plan, traded since"),
    ],
)
def test_plan_of_before__is_not_offered(served: Served, path: str, block: int, words: str, unlisted_words: str) -> None:
    history = golden_document("26-history")
    documents = {
        **served.board.documents,
        "plan": {**golden_document("04-plan"), "block": 100},
        "status": {**golden_document("25-status"), "block": 100, "decision": {"kind": "rebalance", "reason": "of before"}},
        "history": {**history, "steps": [{**STEP, "transactions": [{**TRADE, "block": block}]}]},
        "controls": {**CONTROLS, "controls": []},
    }
    (page,) = [page for page in PAGES if page.path == path]
    text = Renderer(Reach()).render_page(page, documents, {}, 1, Session(1, "anna", False, 0, 0))
    assert words in text
    assert unlisted_words not in text


def test_rebalance_now__is_off_while_the_run_s_own_is_under_way(served: Served) -> None:
    run = {"ok": True, "state": "running", "cycles": 1, "paused": False, "sends": True, "reasons": [], "next_cycle": None}
    history = {**golden_document("26-history"), "steps": [{**STEP, "decision": "rebalance", "outcome": "unfinished"}]}
    documents = {**served.board.documents, "run": run, "history": history, "controls": {**CONTROLS, "controls": []}, "pause": RUNNING_PAUSE}
    text = Renderer(Reach()).render_page(PAGES[0], documents, {}, 1, Session(1, "anna", False, 0, 0))
    [attributes] = re.findall('<button id="b-rebalance"([^>]*)>', text)
    assert "disabled" in attributes
    assert "A rebalance of the run is under way" in text


@pytest.mark.parametrize(
    ("kind", "state", "is_served", "says"),
    [
        ("rebalance", "taken", True, ["What was requested is under way"]),
        ("confirm", "queued", True, ["What was requested is under way"]),
        ("rebalance", "done", True, ["it asks for nothing"]),
        ("pause", "taken", True, ["it asks for nothing"]),
        ("stop", "done", False, []),
    ],
    ids=["taken", "queued", "done", "a pause", "no run"],
)
def test_trigger__asks_for_nothing_only_where_a_rebalance_may_be(
    served: Served, kind: str, state: str, is_served: bool, says: list[str]
) -> None:
    control = {**CONTROLS["controls"][0], "kind": kind, "state": state}
    status = {**golden_document("25-status"), "decision": {"kind": "hold", "reason": "all weights are inside"}}
    documents = {
        **served.board.documents,
        "controls": {**CONTROLS, "served": is_served, "controls": [control]},
        "status": status,
        "pause": RUNNING_PAUSE,
        "history": {**golden_document("26-history"), "steps": []},
    }
    text = re.sub("<[^>]*>", "", Renderer(Reach()).render_page(CONTROL_PAGE, documents, {}, 1, Session(1, "anna", False, 0, 0)))
    sentences = ("What was requested is under way", "it asks for nothing")
    assert [sentence for sentence in sentences if sentence in text] == says


STOP = {"done": True, "since": "2026-11-30 15:40:00 UTC", "to_stable": True, "to": None}
RUNNING_PAUSE = {"paused": False, "pause_reason": "", "pause_hard": False, "pause_signed": []}


def render_with_pause(served: Served, page: Any, pause: dict[str, Any]) -> str:
    """Return a page of a user who may control, of a bot that was stopped by its owner, with this document of its pause."""
    controls = {**CONTROLS, "served": False, "controls": []}
    status = {**golden_document("25-status"), "decision": {"kind": "halt", "reason": "the bot was stopped by its owner"}}
    documents = {**served.board.documents, "status": status, "controls": controls, "pause": pause}
    return Renderer(Reach()).render_page(page, documents, {}, 1, Session(1, "anna", False, 0, 0))


@pytest.mark.parametrize("page", [PAGES[0], CONTROL_PAGE], ids=lambda page: page.title)
def test_page_without_a_stop__offers_a_rebalance(served: Served, page: Any) -> None:
    assert 'action="/controls/rebalance"' in render_with_pause(served, page, RUNNING_PAUSE)


@pytest.mark.parametrize("sheet", ["pause", "weights", "orders", "withdraw"])
def test_opened_sheet__has_the_focus_on_a_field_not_on_its_button(served: Served, sheet: str) -> None:
    form = render_with_pause(served, PAGES[0], RUNNING_PAUSE).partition(f'<div id="{sheet}"')[2].partition("</form>")[0]
    assert re.findall("<([a-z]+)[^>]* autofocus", form) == ["input"]


@pytest.mark.parametrize("stop", [STOP, {**STOP, "done": False, "since": "2026-11-30 15:39:00 UTC"}], ids=["done", "not finished"])
@pytest.mark.parametrize("page", [*PAGES, CONTROL_PAGE], ids=lambda page: page.title)
def test_page_after_a_stop__says_so_and_offers_no_control(served: Served, page: Any, stop: dict[str, Any]) -> None:
    holding = golden_document("25-status")["holdings"][0]
    stopped_page = render_with_pause(served, page, {**RUNNING_PAUSE, "stop": stop})
    text = " ".join(unescape(re.sub("<[^>]*>", "", stopped_page)).split())
    assert stop_text(stop) in text
    assert f"The wallet holds {format_figure(holding['amount'], 'amount')} {holding['symbol']}" in text
    for offer in (r'action="/(?!logout)[^"]*" ?', 'popovertarget="(?:pause|weights|orders|withdraw|stop)"', "takes controls now", "armed"):
        assert not re.search(offer, stopped_page), offer


def test_status__says_a_stop_in_the_words_of_the_pages() -> None:
    status = golden_document("74-status")
    console = Console(record=True, width=400, file=StringIO())
    show_status(console, status)
    assert f"{stop_text(status['stop'])}." in console.export_text()


def test_banner_of_a_stop__says_that_a_run_buys_back_what_it_sold() -> None:
    assert ("buys back" in stop_text(STOP), "buys back" in stop_text({**STOP, "to_stable": False})) == (True, False)


def test_waiting_plan_s_amounts__are_cut_and_other_texts_not() -> None:
    assert format_move("-0.37343385941758046 WETH") == "−0.373433 WETH"
    assert format_move("1309.772945 USDC") == "+1,309.77 USDC"
    assert [format_move(move) for move in ("pay 50 USDC", "1.2.3 X", "")] == ["pay 50 USDC", "1.2.3 X", ""]


def test_the_weight_after_a_plan_of_a_symbol_with_dots_is_shown(served: Served) -> None:
    served.board.documents["plan"]["weights_after_bps"]["USDC.e"] = 1_234
    value_by_path = {of: value for of, _, value, _ in figures(served.ask("/plan")[2].decode())}
    assert value_by_path["plan.weights_after_bps.USDC.e"] == "1234"


@pytest.mark.parametrize("command", ["lp", "strategies", "positions", "margin", "funding", "books lots"])
def test_the_given_documents_are_those_of_their_commands(served: Served, command: str) -> None:
    assert misfits(DOCUMENTS[command], served.board.documents[command.removeprefix("books ")]) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.title)
def test_the_banner_of_a_demo_is_on_each_page_and_nowhere_else(served: Served, page: Any) -> None:
    documents = served.board.documents
    pages = [Renderer(Reach(banner=banner)).render_page(page, documents, {}, 1) for banner in ("Demo: replayed & no money", "")]
    assert ["Demo: replayed &amp; no money" in text for text in pages] == [True, False]


def test_notes_of_assets__show_coins_with_six_significant_digits(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = served.board.documents
    exact = "1.123456789012345678"
    monkeypatch.setitem(documents["status"], "excluded", [{"symbol": "WETH", "amount": exact, "why": "reserved"}])
    monkeypatch.setitem(documents["lots"]["assets"][0], "unmatched", exact)
    text_by_path = {of: (value, text) for of, _, value, text in figures(served.ask("/assets")[2].decode())}
    for path in ("status.excluded.0.amount", "lots.assets.0.unmatched"):
        assert text_by_path[path] == (exact, "1.12345")


def test_liquidity__fee_of_a_pool_has_no_empty_decimals(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(served.board.documents["lp"]["targets"][0], "fee_pips", 10_000)
    assert " 1 %</td>" in served.ask("/liquidity")[2].decode()


REPLAYED = "1700000000,2021-01-01\n1700864000,2021-01-08\n1701728000,2021-03-05\n"
"""Prices of the dates, each from a time of the chain on, ten days apart."""


@pytest.mark.parametrize(
    ("chain_s", "recorded"),
    [
        (1_699_999_999, "2021-01-01"),
        (1_700_000_000, "2021-01-01"),
        (1_700_432_000, "2021-01-04T12:00:00"),
        (1_700_864_000, "2021-01-08"),
        (1_701_728_000, "2021-03-05"),
        (1_801_728_000, "2021-03-05"),
    ],
    ids=["before", "first", "between", "second", "last", "after"],
)
def test_replay__recorded_time_passes_evenly_between_its_dates(tmp_path: Path, chain_s: int, recorded: str) -> None:
    (tmp_path / "replay.csv").write_text(REPLAYED)
    replay = read_replay(tmp_path / "replay.csv")
    assert replay.recorded_s(chain_s) == datetime.fromisoformat(recorded).replace(tzinfo=UTC).timestamp()


def test_chart__waits_for_the_profit_of_its_values() -> None:
    """The first valuations are read a moment before the first profit."""
    series = {"times_s": [1, 2], "values": ["1", "2"], "hold_values": ["1", "1"], "rebalances": []}
    assert value_charts({"series": series, "pnl": {}}) == []
    assert len(value_charts({"series": series, "pnl": {"all": {"numeraire": "USDC"}}})) == 1


def test_replay__chart_and_banner_name_recorded_dates(served: Served, tmp_path: Path) -> None:
    (tmp_path / "replay.csv").write_text(REPLAYED)
    overview = PAGES[0]
    texts = [
        Renderer(Reach(banner="Demo.", replay_path=path)).render_page(overview, served.board.documents, {}, 1)
        for path in (tmp_path / "replay.csv", tmp_path / "none.csv", None)
    ]
    dates = "prices of 1 Jan 2021 to 5 Mar 2021"
    assert [dates in text for text in texts] == [True, False, False]
    assert [("Today" in text, "Price, 24 h" in text) for text in texts] == [(False, False), (True, True), (True, True)]
    assert f"Demo. Replayed so far: {dates}." in texts[0]
    assert f"in USDC, {dates}</h2>" in texts[0]
    chart = json.loads(unescape(re.findall('data-value-chart="([^"]+)"', texts[0])[0]))
    first, *_, last = (datetime.fromtimestamp(time_s, UTC).date().isoformat() for time_s in chart["times_s"])
    assert (first, last) == ("2021-01-01", "2021-03-05")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.title)
def test_config_symbols_and_text__are_text_and_nothing_runs(served: Served, page: Any) -> None:
    code, headers, body = served.ask(page.path)
    text = body.decode()
    assert code == 200
    assert HOSTILE not in text
    assert MARKUP not in text
    assert "<script>" not in text
    assert " onerror" not in text.replace("&lt;img src=x onerror=alert(1)&gt;", "")
    assert "style=" not in text
    policy = headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize("path", ["/", "/settings", "/reports"])
@pytest.mark.parametrize(
    ("health", "words"),
    [
        (RunHealth("stopped", ("the run was stopped",), ()), "Connected, but no run goes on: figures are those of the chain."),
        (RunHealth("running", (), ()), "Live: this page follows the agent."),
    ],
    ids=["stopped", "running"],
)
def test_every_page__says_whether_a_run_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch, path: str, health: RunHealth, words: str
) -> None:
    monkeypatch.setattr(type(served.board), "run_health", lambda _: health)
    assert f'data-live="{words}"' in served.ask(path)[2].decode()


@pytest.mark.parametrize("path", ["/", "/assets", "/strategies", "/liquidity", "/futures", "/settings", "/reports"])
def test_config_symbols_and_text__are_shown_escaped(served: Served, path: str) -> None:
    text = served.ask(path)[2].decode()
    assert "&lt;img src=x onerror" in text
    assert "&lt;/data&gt;&lt;script&gt;" in text


def test_plan__is_valid_for_a_time_only_with_something_planned(served: Served) -> None:
    plan = served.board.documents["plan"]
    plan["block"], plan["expires_block"] = 155, 160
    assert b"valid until block" in served.ask("/plan")[2]
    plan["expires_block"] = 155
    assert b"valid until" not in served.ask("/plan")[2]
    assert b"A dry run at block" in served.ask("/plan")[2]


def test_leg_amounts__have_decimals_of_tokens_beyond_assets(served: Served) -> None:
    plan = served.board.documents["plan"]
    plan["legs"] = [{**plan["legs"][0], "token_in": "HUB", "decimals_in": 18, "amount_in_raw": "1500000000000000000"}]
    text_by_path = {of: text for of, _, _, text in figures(served.ask("/plan")[2].decode())}
    assert (text_by_path["plan.legs.0.token_in"], text_by_path["plan.legs.0.amount_in_raw"]) == ("HUB", "1.5")


@pytest.mark.parametrize(
    ("hours", "gaps"),
    [
        ([0, 1, 2.1, 3.2, 9, 10], [4]),
        ([0, 0.02, 5], [2]),
        ([0, 1, 3, 4], []),
        ([0, 24, 48, 73], []),
        ([0, 9], []),
    ],
    ids=["a night off", "stopped after a purchase", "a slow hour", "daily checks", "two values"],
)
def test_chart__breaks_where_no_value_was_recorded(hours: list[float], gaps: list[int]) -> None:
    times_s = [1_790_000_000 + round(hour * 3_600) for hour in hours]
    flat = ["1"] * len(times_s)
    series = {"times_s": times_s, "values": flat, "hold_values": flat, "rebalances": []}
    [chart] = value_charts({"series": series, "pnl": {"all": {"numeraire": "USDC"}}})
    assert (chart["gaps"], json.loads(unescape(str(chart["data"])))["gaps"]) == (gaps, gaps)
    values = [{"time": f"{datetime.fromtimestamp(time_s, UTC):%FT%TZ}", "weights_bps": {"B": 5_000}} for time_s in reversed(times_s)]
    [weight_chart] = weight_charts({"values": values})
    assert json.loads(weight_chart["data"])["gaps"] == gaps


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/assets", "Drift: weight less target."),
        ("/plan", "Guards are the checks of the plan; one that refuses keeps it from being sent."),
        ("/plan", "Approvals: permits for a contract to take a token."),
        ("/", "revoke allowances, which permit contracts to take tokens"),
        ("/", "Sell everything for USDC"),
    ],
    ids=["drift", "guards", "approvals", "allowances", "numeraire"],
)
def test_term__is_explained_where_it_stands(served: Served, path: str, words: str) -> None:
    documents = {**served.board.documents, "plan": golden_document("04-plan"), "pause": RUNNING_PAUSE}
    (page,) = [page for page in PAGES if page.path == path]
    assert words in Renderer(Reach()).render_page(page, documents, {}, 1, Session(1, "anna", False, 0, 0))


@pytest.mark.parametrize("path", ["/", "/assets", "/alerts"])
def test_alert_price__is_about_where_it_stands(served: Served, path: str) -> None:
    text = served.ask(path)[2].decode()
    derived_prices = re.findall(r"(\w+) (?:</span>)?<data [^>]*data-of=\"alerts.assets.\d+.alert_(?:low|high)\"[^>]*>[^–]", text)
    assert len(derived_prices) > 3
    assert set(derived_prices) == {"about"}


def test_each_weight_over_time_is_drawn_against_its_present_band() -> None:
    values = [
        {"time": f"2026-01-0{day}T00:00:00Z", "value": "10", "weights_bps": {"OLD": 10_000 - bps, "B": bps}}
        for day, bps in ((3, 4_000), (2, 3_000))
    ]
    drawn = weight_charts(
        {"values": values},
        [
            {"symbol": "B", "weight_bps": 4_000, "band_bps": [2_000, 3_500], "target_bps": 2_750},
            {"symbol": "NEW", "weight_bps": 0, "band_bps": [0, 0], "target_bps": 0},
        ],
    )
    documents = [json.loads(drawing["data"]) for drawing in drawn]
    assert [(document["name"], document["line"], document["band"]) for document in documents] == [
        ("B", [30.0, 40.0], [20.0, 35.0, 27.5]),
        ("OLD", [70.0, 60.0], None),
    ]
    assert drawn[0]["label"].endswith("from 30.00 to 40.00; its band now is 20.00 to 35.00, its target 27.50")


@pytest.mark.parametrize(
    ("weight_bps", "target_bps", "band_bps"),
    [
        pytest.param(10_000, 2_000, [0, 10_000], id="numeraire before the first purchase"),
        pytest.param(0, 0, [0, 52], id="sold by its stop"),
        pytest.param(2_100, 2_000, [2_000, 2_000], id="of a schedule"),
        pytest.param(2_796, 3_300, [2_100, 2_785], id="of the others"),
    ],
)
def test_asset_without_a_band_of_its_own_has_none_on_any_page(weight_bps: int, target_bps: int, band_bps: list[int]) -> None:
    holding = {"symbol": "B", "weight_bps": weight_bps, "band_bps": band_bps, "target_bps": target_bps}
    bar = weight_bar(holding, 10_000)
    values = [{"time": f"2026-01-0{day}T00:00:00Z", "weights_bps": {"B": weight_bps}} for day in (3, 2)]
    [drawing] = weight_charts({"values": values}, [holding])
    assert "%, no band" in bar
    assert 'class="bar"' in bar
    assert drawing["title"].endswith(f"; no band, target {target_bps / 100:.2f}")
    assert json.loads(drawing["data"])["band"] == [target_bps / 100] * 3


def test_next_trigger__is_now_a_time_a_price_or_any_cycle(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        text = served.ask("/")[2].decode().split("<p>Next trigger: ")[1].split("</p>")[0]
        return " ".join(re.sub("<[^>]*>", "", text).split())

    status = served.board.documents["status"]
    alerts = served.board.documents["alerts"]

    def row(symbol: str, low: int | None, high: int | None, side: str = "inside") -> dict[str, Any]:
        return {**alerts["assets"][0], "symbol": symbol, "to_low_bps": low, "to_high_bps": high, "side": side, "alert_low": "8.5"}

    assets = [row("USDC", -1, 1), row("WETH", None, 900), row("WBTC", -850, 1_200)]
    monkeypatch.setitem(alerts, "assets", assets)
    monkeypatch.setitem(status, "numeraire", "USDC")
    for kind, due, expected_text in (
        ("rebalance", None, "now"),
        ("hold", "2026-01-02 03:04:05", "2026-01-02 03:04:05 UTC"),
        ("hold", None, "WBTC −8.50 % to about 8.50000, if it alone moves"),
    ):
        monkeypatch.setitem(status["decision"], "kind", kind)
        monkeypatch.setitem(status["trigger"], "next", due)
        assert shown() == expected_text
    monkeypatch.setitem(status, "zone", zone_of(status))
    assert shown() == "WBTC −8.50 % to about 8.50000 at these weights, if it alone moves; usually further, as its range moves along"
    for rows in ([row("USDC", -1, 1), row("WETH", None, None)], [*assets, row("LINK", -5, 5, "above")]):
        monkeypatch.setitem(alerts, "assets", rows)
        assert shown() == "any cycle"
    monkeypatch.setitem(served.board.documents, "alerts", {"error": "not read"})
    assert shown() == "any cycle"


def test_menu__leaves_out_features_that_the_config_lacks(served: Served) -> None:
    documents = dict(served.board.documents)

    def menu(*missing: str) -> list[str]:
        served.board.documents = {name: document for name, document in documents.items() if name not in missing}
        return re.findall(r">([^<]+)</a></li>", served.ask("/")[2].decode())

    whole = [page.title for page in PAGES]
    assert menu() == whole
    assert menu("lp") == [title for title in whole if title != "Liquidity"]
    assert menu("strategies") == [title for title in whole if title != "Strategies"]
    assert menu("positions", "margin", "funding") == [title for title in whole if title != "Futures"]
    sections = [*documents["settings"]["sections"], {"title": "Liquidity", "settings": [], "editable": []}]
    documents["settings"] = {**documents["settings"], "sections": sections}
    assert menu("lp", "status") == whole, "before the first reading, if the config has it"
    documents["settings"] = {"error": "not read"}
    assert "Liquidity" not in menu("lp")
    served.board.documents = documents


def zone_of(status: dict[str, Any], correction: dict[str, Any] | None = None, *, edges: tuple[int, int] = (0, 10_000)) -> dict[str, Any]:
    """A zone of the holdings of a status, all with this range and correction."""
    own = {"correction": correction, "no_trade_bps": list(edges), "trigger_bps": list(edges)}
    keys = ("symbol", "weight_bps", "target_bps")
    assets = [{**{key: holding[key] for key in keys}, **own} for holding in status["holdings"]]
    return {"plan": None, "assets": assets}


@pytest.mark.parametrize(("range_bps", "is_said"), [pytest.param((0, 10_000), False, id="around"), pytest.param((1, 1), True, id="beside")])
def test_range_beside_its_target__is_said_to_be_that_of_these_weights(served: Served, range_bps: tuple[int, int], is_said: bool) -> None:
    status = golden_document("25-status")
    status["zone"] = zone_of(status, edges=range_bps)
    text = Renderer(Reach()).render_page(PAGES[0], {**served.board.documents, "status": status}, {}, 1)
    assert ("a range lies beside its target at these weights of the others" in text) is is_said


@pytest.mark.parametrize(
    ("has_zone", "holding_count", "is_said"),
    [
        pytest.param(True, None, True, id="several coins"),
        pytest.param(True, 2, False, id="one coin"),
        pytest.param(False, None, False, id="bands"),
    ],
)
def test_back_to__is_said_to_be_of_an_asset_that_trades_alone(
    served: Served, has_zone: bool, holding_count: int | None, is_said: bool
) -> None:
    status = golden_document("25-status")
    status["holdings"] = status["holdings"][:holding_count]
    status["zone"] = zone_of(status) if has_zone else None
    text = Renderer(Reach()).render_page(PAGES[0], {**served.board.documents, "status": status}, {}, 1)
    assert ("a plan that moves several at once may end at other weights and at another cost" in text) is is_said


def test_entry_prices__are_said_to_share_the_costs_of_a_transaction(served: Served) -> None:
    assert "the coins that one transaction buys share what it cost by value" in served.ask("/assets")[2].decode()


@pytest.mark.parametrize(
    ("cost", "waiting_year", "is_shown"),
    [
        pytest.param("0.004", "0.0049", False, id="both below"),
        pytest.param("0.005", "0", True, id="half a cent"),
        pytest.param("0.001", "1", True, id="waiting costs more"),
    ],
)
def test_cost_of_a_correction__below_a_cent_is_not_shown(served: Served, cost: str, waiting_year: str, is_shown: bool) -> None:
    status = golden_document("25-status")
    correction = {"cost": cost, "waiting_year": waiting_year}
    status["zone"] = zone_of(status, correction)
    text = Renderer(Reach()).render_page(PAGES[0], {**served.board.documents, "status": status}, {}, 1)
    assert ("a trade back costs" in text) is is_shown


@pytest.mark.parametrize("has_zone", [True, False], ids=["tracking", "bands"])
@pytest.mark.parametrize("path", ["/", "/assets", "/alerts"])
def test_alert_prices__are_further_where_a_range_follows_prices(served: Served, path: str, has_zone: bool) -> None:
    status = golden_document("25-status")
    status["zone"] = zone_of(status) if has_zone else None
    [page] = [page for page in PAGES if page.path == path]
    text = Renderer(Reach()).render_page(page, {**served.board.documents, "status": status}, {}, 1)
    assert "at about these prices an asset leaves its band, if no other price moves" in text
    assert ("; among several coins usually further, as a range moves along with its price: the tracking trigger" in text) is has_zone
    assert ("at these weights" in text) is (has_zone and path != "/"), "the Overview's table has no room"


@pytest.mark.parametrize(
    ("value", "figure_format", "css_class"),
    [
        pytest.param("-0.004", "money", "", id="rounded up to zero"),
        pytest.param("0.004", "money", "", id="rounded down to zero"),
        pytest.param("-0.006", "money", "down", id="loss of a cent"),
        pytest.param("0.006", "money", "up", id="gain of a cent"),
        pytest.param("0", "money", "", id="zero"),
        pytest.param("-0.004", "amount", "down", id="amount"),
        pytest.param(-1, "percent+", "down", id="percent"),
        pytest.param(None, "money", "", id="unknown"),
    ],
)
def test_colour_of_a_figure__is_that_of_what_is_shown(value: Any, figure_format: str, css_class: str) -> None:
    element = figure_element({"a": {"b": value}}, "a.b", figure_format, colour=True)
    assert re.findall(' class="([^"]*)"', element) == ([css_class] if css_class else [])


@pytest.mark.parametrize(("count", "names"), [(1, ["Approvals"]), (2, ["Approvals 2 of 2", "Approvals 1 of 2"])], ids=["one", "two"])
def test_approvals_of_a_rebalance__are_numbered_if_there_are_several(served: Served, count: int, names: list[str]) -> None:
    """The newest stands first, as in the history."""
    history = golden_document("26-history")
    swap = next(step for step in history["steps"] if step["execution"])
    cost = {"fees": "0", "impact": "0", "gas": "0.1", "total": "0.1"}
    approval = {**swap, "outcome": "approved", "execution": None, "cost": cost}
    documents = {**served.board.documents, "history": {**history, "steps": [swap, *[approval] * count]}}
    text = Renderer(Reach()).render_page(PAGES[0], documents, {}, 1)
    assert re.findall('<th scope="row">(Approvals[^<]*)</th>', text) == names


@pytest.mark.parametrize(
    ("band_bps", "back_to_bps", "is_shown"),
    [
        pytest.param([2_600, 3_700], [3_000, 3_000], True, id="moves inside"),
        pytest.param([3_635, 4_684], [3_000, 3_000], False, id="moves outside"),
        pytest.param([3_635, 4_684], None, True, id="move unknown"),
        pytest.param([3_000, 3_000], [1, 2], True, id="moves to the edge and below"),
    ],
)
def test_band__is_hidden_while_it_is_not_where_the_asset_moves_to(
    served: Served, monkeypatch: pytest.MonkeyPatch, band_bps: list[int], back_to_bps: list[int] | None, is_shown: bool
) -> None:
    """The ranges of the tracking rule during a first purchase, whose other assets are not bought yet."""
    status = served.board.documents["status"]
    holding = {**status["holdings"][1], "weight_bps": 0, "target_bps": 3_000, "band_bps": band_bps, "back_to_bps": back_to_bps}
    monkeypatch.setitem(status, "holdings", [holding])
    text = served.ask("/")[2].decode()
    assert ("moves </span>" in text) is is_shown
    monkeypatch.setitem(holding, "weight_bps", 3_000)
    is_by_others = not band_bps[0] <= 3_000 <= band_bps[1]
    assert (">with the others</td>" in served.ask("/")[2].decode()) is is_by_others
    assert 'id="outside"' not in text or is_shown


def test_an_asset_outside_its_band_says_why_it_is_not_traded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    status = served.board.documents["status"]
    step = served.board.documents["history"]["steps"][0]

    def reasons() -> list[str]:
        return [re.sub("<[^>]*>", "", row) for row in re.findall('<p class="note" id="outside">(.*?)</p>', served.ask("/")[2].decode())]

    assert reasons() == []
    monkeypatch.setitem(status["holdings"][1], "weight_bps", status["holdings"][1]["band_bps"][1] + 1)
    monkeypatch.setitem(status, "decision", {"kind": "hold", "reason": "it costs too much"})
    assert reasons() == ["Outside its band: WBTC. Not traded: see Next decision."]
    monkeypatch.setitem(status, "decision", {"kind": "rebalance", "reason": "outside"})
    monkeypatch.setitem(step, "execution", None)
    monkeypatch.setitem(step, "reason", "a guard refused")
    assert reasons() == [f"Outside its band: WBTC. Not traded in the last cycle, {step['time']} UTC: a guard refused"]
    monkeypatch.setitem(step, "outcome", "unfinished")
    monkeypatch.setitem(served.board.documents, "run", HEALTHY_RUN)
    assert reasons() == [f"Outside its band: WBTC. A cycle is under way, since {step['time']} UTC."]
    monkeypatch.delitem(served.board.documents, "run")
    monkeypatch.setitem(step, "execution", {"amounts": None, "unknown": 1, "legs": 1, "difference": None})
    assert reasons() == ["Outside its band: WBTC. Traded in the next cycle."]
    assert "unknown for" in served.ask("/")[2].decode()


def test_only_steps_with_a_swap_are_listed_as_rebalances(served: Served) -> None:
    history = served.board.documents["history"]
    sent = {"status": "final", "block": 1, "note": "", "hash": ""}
    kinds: tuple[tuple[str, ...], ...] = ("approve",), ("approve", "swap"), ("payout",), (), ("swap",)
    history["steps"] = [
        {**history["steps"][0], "step": f"s{number}", "transactions": [{**sent, "kind": kind} for kind in of]}
        for number, of in enumerate(kinds)
    ]
    text = served.ask("/history")[2].decode()
    listed = {part.split('"')[0]: re.findall(r'/history/(s\d)"', part.split("</table>")[0]) for part in text.split('aria-label="')[1:]}
    assert {label: steps for label, steps in listed.items() if steps} == {
        "Rebalances": ["s1", "s4"],
        "Other transactions": ["s0", "s2"],
        "Other cycles": ["s3"],
    }


@pytest.mark.parametrize("explorer", ["https://scan.example", ""])
def test_transactions_of_the_chain_link_to_its_explorer(explorer: str) -> None:
    hashes = [f"0x{1:064x}", f"0x{1:032x}", ""]  # on the chain, on Hyperliquid, not signed
    sent = [{"kind": "swap", "status": "final", "block": 1, "note": "", "hash": tx_hash} for tx_hash in hashes]

    class StepBoard(StaticDocumentCache):
        async def read_stored(self, function: Callable[..., Any], *arguments: Any) -> Any:
            return {"explain": {**golden_document("27-explain"), "transactions": sent}, "explorer": explorer}

    with Served(board=StepBoard("none.toml", Path("none.db"))) as served:
        text = served.ask("/history/abc")[2].decode()
    links = re.findall(r'<a href="(http[^"]*)" rel="noopener noreferrer"', text)
    assert links == ([f"{explorer}/tx/{hashes[0]}"] if explorer else [])
    assert text.count("http") == len(links)


@pytest.mark.parametrize(
    ("outcome", "step_kind"),
    [("unfinished", "refusal"), ("error", "refusal"), ("under way", "other"), ("hold", "other")],
    ids=["unfinished", "error", "under way", "hold"],
)
def test_step_class__of_what_was_not_done_is_a_refusal(outcome: str, step_kind: str) -> None:
    assert step_class({"outcome": outcome, "transactions": []}) == step_kind


@pytest.mark.parametrize("may_edit", [True, False], ids=["a user who may edit", "a reader"])
def test_assets_without_orders__name_what_sets_them(served: Served, may_edit: bool) -> None:
    page = next(page for page in PAGES if page.path == "/assets")
    documents = {**served.board.documents, "orders": {"orders": [], "contradictions": []}}
    text = Renderer(Reach()).render_page(page, documents, {}, 1, Session(1, "anna", not may_edit, 0, 0))
    assert ("Set… on the Overview" in text, "orders set</code> sets them" in text) == (may_edit, not may_edit)
