"""Several portfolios in one dashboard: their list, and that nothing of one is worth anything at another."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent import artifacts
from agent.app.controls.queue import list_controls
from agent.config.load import load_config
from agent.errors import ConfigError, OperatorNeeded, TrimtabError
from agent.figures import format_figure, stop_text
from agent.fleet.configs import find_configs, portfolio_names
from agent.model import OrderKind, RunReport
from agent.observe.health import process_identity
from agent.store import open_store
from agent.store.files.users import open_user_file
from agent.web import app_modules, portfolios
from agent.web.api.tokens import TokenFile, TokenScope
from agent.web.document_cache import CacheProcess, SeenReport
from agent.web.pages import PAGES, value_at
from agent.web.portfolios import create_portfolios
from agent.web.reach import Reach
from agent.web.server import serve_portfolios
from agent.web.sessions import PlanReview
from tests.cli.tools import first_document, start
from tests.support import agents
from tests.support.dashboards import HOSTILE, MARKUP, InProcessAppProcess, StaticDocumentCache, documents, figures, until
from tests.support.pages.portfolios import ABOUT, ServedPortfolios
from tests.support.sites import HASH, PASSWORD, behind_proxy


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedPortfolios]:
    with ServedPortfolios(tmp_path_factory.mktemp("shelf"), ("a", HOSTILE.replace("/", ""), "gone")) as served_portfolio:
        yield served_portfolio


B = "/p/img-src-x-onerror-alert-1"


def calm_card(
    shelf: ServedPortfolios,
    monkeypatch: pytest.MonkeyPatch,
    report: RunReport | None,
    step: dict[str, str],
    pause: dict[str, Any] | None = None,
) -> str:
    """Return the card of the first portfolio, without alerts, with the report of its run, fields of its newest step and its pause."""
    cache = shelf.parts[0].opened_parts.cache  # type: ignore[union-attr]  # it is open
    calm = {**documents(), "alerts": {"open": []}}
    calm["status"] |= {"paused": False, "blocked_exits": [], "decision": {"kind": "hold", "reason": "within its bands"}}
    calm["status"] |= pause or {}
    calm["history"]["steps"][0] |= step
    monkeypatch.setattr(cache, "documents", calm)
    monkeypatch.setattr(cache, "_seen_report", SeenReport(report, time.monotonic()))
    monkeypatch.setattr(cache, "report_error", None)
    return first_card(shelf)


def first_card(shelf: ServedPortfolios) -> str:
    cards = shelf.ask("/", Cookie=shelf.enter(0))[2].decode().split("<article")
    return next(card for card in cards if 'id="n-1"' in card)


def test_names__are_the_files_and_slugs_are_unique(tmp_path: Path) -> None:
    configs = [tmp_path / name for name in ("one/trimtab.toml", "two/trimtab.toml", "Über%2f..toml", "ü.toml", "One Trimtab.toml")]
    names = portfolio_names(configs)
    assert [name for name, _ in names] == ["one/trimtab", "two/trimtab", "Über%2f.", "ü", "One Trimtab"]
    assert [slug for _, slug in names] == ["one-trimtab", "two-trimtab", "ber-2f", "portfolio", "one-trimtab-2"]


def test_names__of_files_that_are_not_utf_8__can_be_encoded() -> None:
    """The metrics file would raise UnicodeEncodeError for all portfolios."""
    configs = [Path(os.fsdecode(b"\xffeth.toml")), Path(os.fsdecode(b"\xff/a.toml")), Path("b/a.toml")]
    assert [name.encode() for name, _ in portfolio_names(configs)] == [rb"\udcffeth", rb"\udcff/a", b"b/a"]


def test_a_folder_gives_its_configs_and_none_is_served_twice(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", ".hidden.toml", "a.toml.old"):
        (tmp_path / name).touch()
    assert find_configs([tmp_path, Path("c.toml")]) == [tmp_path / "a.toml", tmp_path / "b.toml", Path("c.toml")]
    (tmp_path / "empty").mkdir()
    for paths in ([tmp_path, tmp_path / "a.toml"], [tmp_path / "empty"]):
        with pytest.raises(ConfigError) as refused:
            find_configs(paths)
        assert refused.value.field == "--config"


def test_list__shows_what_the_session_may_see(shelf: ServedPortfolios) -> None:
    stranger = shelf.ask("/")[2].decode()
    assert not figures(stranger)
    assert "the disk is gone" not in stranger
    assert ABOUT.wallet[-4:] not in stranger
    assert 'href="/p/a/login"' in stranger
    assert f'href="{B}/login"' in stranger
    assert HOSTILE not in stranger
    assert "&lt;img src=x onerror" in stranger
    mine = shelf.ask("/", Cookie=shelf.enter(0))[2].decode()
    page_figures = figures(mine)
    pnl = documents()["pnl"]["all"]
    amounts = {"value": pnl["value"], "profit": pnl["periods"][0]["profit"], "day": pnl["periods"][0]["profit"]}
    total = {"count": 1, "numeraire": pnl["numeraire"], "oldest": pnl["until"], **amounts}
    page_documents = {"portfolios": [documents(), {}], "sums": [total]}
    for of, form, value, text in page_figures:
        exact = value_at(page_documents, of)
        assert (value, text) == ("" if exact is None else str(exact), format_figure(exact, form))
    assert {of.removeprefix("portfolios.0.") for of, *_ in page_figures} == {
        "pnl.all.value", "pnl.all.until", "pnl.all.periods.0.profit", "pnl.all.periods.0.twr_bps", "pnl.day.periods.0.profit",
        "pnl.all.periods.0.mwr_year_bps", "pnl.all.periods.0.costs_year_bps", "history.steps.0.outcome", "history.steps.0.time",
        *(f"status.holdings.{number}.weight_bps" for number in range(len(documents()["status"]["holdings"]))),
        *(f"sums.0.{name}" for name in ("count", "value", "profit", "day", "oldest")),
    }  # fmt: skip
    assert "0xabab…abab" in mine
    assert "the disk is gone" in mine
    assert f'href="{B}/login"' in mine
    both = shelf.ask("/", Cookie=f"{shelf.enter(0)}; {shelf.enter(1)}")[2].decode()
    assert {of.split(".")[1] for of, *_ in figures(both)} == {"0", "1"}
    sums = {of.removeprefix("sums.0."): value for of, _, value, _ in figures(both) if of.startswith("sums.")}
    assert sums["count"] == "2"
    assert {name: Fraction(sums[name]) for name in amounts} == {name: 2 * Fraction(amount) for name, amount in amounts.items()}


def test_a_price_alert_is_told_and_needs_nobody(shelf: ServedPortfolios, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shelf.parts[0].opened_parts is not None
    cache = shelf.parts[0].opened_parts.cache
    calm = documents()
    calm["status"] |= {"paused": False, "blocked_exits": [], "decision": {"kind": "hold", "reason": "within its bands"}}
    calm["history"] |= {"steps": []}
    for kind, needs in ((OrderKind.ALERT_ABOVE, False), (OrderKind.ALERT_BELOW, False), (OrderKind.STOP_LOSS, True)):
        alert = {"key": f"{kind.value}:0x12:5", "text": "WETH is at 3,000", "event": "price"}
        monkeypatch.setattr(cache, "documents", {**calm, "alerts": {"open": [alert]}})
        cards = shelf.ask("/", Cookie=shelf.enter(0))[2].decode().split("<article")
        [card] = [card for card in cards if "WETH is at 3,000" in card]
        assert ("Needs you" in card) is needs


def test_card__says_each_problem_once_and_counts_addresses(shelf: ServedPortfolios, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shelf.parts[0].opened_parts is not None
    page_documents = documents()
    reason = f"pools changed: {', '.join(f'0x{number:040x}' for number in range(9))}"
    blocked = [{"symbol": symbol, "address": "", "why": reason, "remedy": "wait"} for symbol in ("A", "B")]
    page_documents["status"] |= {"decision": {"kind": "halt", "reason": reason}, "blocked_exits": blocked}
    page_documents["history"]["steps"][0] |= {"outcome": "halt", "reason": f"halt: {reason}"}
    page_documents["alerts"]["open"] = []
    monkeypatch.setattr(shelf.parts[0].opened_parts.cache, "documents", page_documents)
    text = shelf.ask("/", Cookie=shelf.enter(0))[2].decode()
    assert [problem for problem in re.findall('<p class="alarm">([^<]*)', text) if "pools changed" in problem] == [
        "halt: pools changed: 9 addresses", "A, B: pools changed: 9 addresses"
    ]  # fmt: skip


def test_coins_of_a_local_chain_are_in_a_sum_of_their_own(shelf: ServedPortfolios, monkeypatch: pytest.MonkeyPatch) -> None:
    second = shelf.parts[1]
    both = f"{shelf.enter(0)}; {shelf.enter(1)}"
    assert second.opened_parts is not None
    for local in (True, False):
        monkeypatch.setattr(second, "opened_parts", replace(second.opened_parts, identity=replace(ABOUT, is_local=local)))
        text = shelf.ask("/", Cookie=both)[2].decode()
        counts = [value for of, _, value, _ in figures(text) if of.startswith("sums.") and of.endswith(".count")]
        assert counts == (["1", "1"] if local else ["2"])
        assert ("USDC of local chains" in text) is local


def test_day_of_the_newest_valuation__has_no_profit_yet(shelf: ServedPortfolios) -> None:
    cache = shelf.parts[0].opened_parts.cache  # type: ignore[union-attr]  # it is open
    kept = cache.documents
    try:
        pnl = documents()["pnl"]
        cache.documents = {**kept, "pnl": {**pnl, "day": {**pnl["day"], "periods": []}}}
        text_by_path = {of: text for of, _, _, text in figures(shelf.ask("/", Cookie=shelf.enter(0))[2].decode())}
        assert text_by_path["portfolios.0.pnl.all.periods.0.profit"]
        assert "portfolios.0.pnl.day.periods.0.profit" not in text_by_path
        assert text_by_path["sums.0.day"] == "–"
    finally:
        cache.documents = kept


@pytest.mark.parametrize(
    ("return_bps", "costs_bps", "texts", "reasons"),
    [
        (812.5, 31.0, ("+8.12 %", "0.31 %"), []),
        (None, None, ("–", "–"), ["needs 30 days with value"] * 2),
        (None, 31.0, ("–", "0.31 %"), ["no such rate exists"]),
    ],
    ids=["known", "too short", "no rate"],
)
def test_card__has_return_and_costs_a_year_or_why_not(
    shelf: ServedPortfolios,
    monkeypatch: pytest.MonkeyPatch,
    return_bps: float | None,
    costs_bps: float | None,
    texts: tuple[str, str],
    reasons: list[str],
) -> None:
    cache = shelf.parts[0].opened_parts.cache  # type: ignore[union-attr]  # it is open
    pnl = documents()["pnl"]
    period = {**pnl["all"]["periods"][0], "mwr_year_bps": return_bps, "costs_year_bps": costs_bps}
    monkeypatch.setitem(cache.documents, "pnl", {**pnl, "all": {**pnl["all"], "periods": [period]}})
    card = shelf.ask("/", Cookie=shelf.enter(0))[2].decode()
    text_by_name = {of.rpartition(".")[2]: text for of, _, _, text in figures(card)}
    assert (text_by_name["mwr_year_bps"], text_by_name["costs_year_bps"]) == texts
    assert re.findall("<small>(needs 30 days with value|no such rate exists)</small>", card) == reasons


def test_paper_books__have_a_card_and_a_person_s_needs_come_first(shelf: ServedPortfolios) -> None:
    first, second = (part.opened_parts.cache for part in shelf.parts[:2] if part.opened_parts is not None)
    both = f"{shelf.enter(0)}; {shelf.enter(1)}"
    kept = first.documents, second.documents
    try:
        for cache in (first, second):
            cache.documents = {**documents(), "alerts": {"open": []}}
            cache.documents["status"] |= {"paused": False, "blocked_exits": [], "decision": {"kind": "hold", "reason": "within its bands"}}
            cache.documents["history"] |= {"steps": []}
            cache.documents["paper"] = {"pnl": documents()["pnl"]}
            cache._seen_report = SeenReport()
        del first.documents["pnl"], second.documents["paper"]
        second.documents["controls"] = {"waiting": {"plan_hash": "ab"}}
        text = shelf.ask("/", Cookie=both)[2].decode()
        pills = re.findall('class="pill">([^<]+)<', text)
        assert pills == ["Needs you", "Not read", "Not running", "Paper"]
        needy, _, calm, paper = text.split("<article")[1:]
        actions = [re.findall('action="([^"]+)"', card) for card in (needy, calm, paper)]
        assert actions == [
            [f"{B}/controls/{kind}" for kind in ("confirm", "pause", "stop")],
            ["/p/a/controls/pause", "/p/a/controls/stop"],
            [],
        ]
        assert {of for of, *_ in figures(paper)} >= {"portfolios.0.paper.pnl.all.value", "portfolios.0.paper.pnl.day.periods.0.profit"}
        assert [value for of, _, value, _ in figures(text) if of == "sums.0.count"] == ["1"]
        for served, form, words in ((True, [("/p/a/controls/stop", "yes")], False), (False, [], True)):
            first.documents["paper_run"] = {"served": served, "controls": []}
            card = shelf.ask("/", Cookie=both)[2].decode().split("<article")[-1]
            assert re.findall('action="([^"]+)".*name="paper" value="([^"]+)"', card) == form
            assert ("No paper run goes on" in card) is words
        first.documents["status"]["paused"] = True
        assert 'action="/p/a/controls/resume"' in shelf.ask("/", Cookie=both)[2].decode()
        first.documents["pnl"] = {"error": "the ledger is empty"}
        assert "the ledger is empty" not in shelf.ask("/", Cookie=both)[2].decode(), "it has run on paper only"
        del first.documents["paper"]
        assert "Not valued yet" in shelf.ask("/", Cookie=both)[2].decode()
        assert "not read: the ledger is empty" in shelf.ask("/", Cookie=both)[2].decode()
    finally:
        first.documents, second.documents = kept


def test_list__says_of_each_run_that_it_is_gone_or_stopped(shelf: ServedPortfolios) -> None:
    def shown(report: RunReport | None) -> str:
        opened = shelf.parts[0].opened_parts
        opened.cache._seen_report = SeenReport(report, time.monotonic())
        return shelf.ask("/", Cookie=shelf.enter(0))[2].decode()

    now_s = int(time.time())
    alive = RunReport("a", process_identity(), True, 600, now_s, now_s, cycles=1, last_cycle_s=now_s, last_good_cycle_at_s=now_s)
    place, _, _ = alive.process_identity.rpartition("/")
    assert "run:" not in shown(alive)
    assert "dry run" not in shown(alive)
    assert "dry run: sends nothing" in shown(replace(alive, sends=False))
    assert "run: the process of the run ended without a last report" in shown(replace(alive, process_identity=f"{place}/1"))
    assert "run: no successful cycle for" in shown(replace(alive, started_s=now_s - 9_999, last_good_cycle_at_s=None))
    stopped = shown(replace(alive, ended_s=now_s))
    assert '<p class="say">run stopped at' in stopped
    assert "run:" not in stopped
    assert "run: ended at" in shown(replace(alive, ended_s=now_s, end_error="the store is damaged"))
    assert "no continuous run (trimtab run --every) reports here" in shown(None)


@pytest.mark.parametrize(
    ("outcome", "reason", "trouble", "problems"),
    [
        ("hold", "within its bands", "endpoints disagree", ["run: endpoints disagree"]),
        ("refused", "slippage", "endpoints disagree", ["run: endpoints disagree", "last cycle refused: slippage"]),
        ("error", "it timed out (try again)", "it timed out", ["last cycle error: it timed out (try again)"]),
        ("failed", "failed: it reverted", "failed: it reverted", ["last cycle failed: it reverted"]),
        ("halt", f"no pool {ABOUT.wallet}", f"halt: no pool {ABOUT.wallet}", ["last cycle halt: no pool 0xabab…abab"]),
        ("hold", "within its bands", "", []),
    ],
    ids=["without a step", "before its step", "error", "failure", "halt", "none"],
)
def test_card__says_the_problem_of_a_running_run_once(
    shelf: ServedPortfolios, monkeypatch: pytest.MonkeyPatch, outcome: str, reason: str, trouble: str, problems: list[str]
) -> None:
    now_s = int(time.time())
    report = RunReport("a", process_identity(), True, 3_600, now_s, now_s, cycles=2, last_cycle_s=now_s, last_good_cycle_at_s=now_s)
    card = calm_card(shelf, monkeypatch, replace(report, trouble=trouble), {"outcome": outcome, "reason": reason})
    assert re.findall('<p class="alarm">([^<]*)', card) == problems
    assert ("Needs you" in card) is bool(problems)


@pytest.mark.parametrize("is_hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("trouble", ["", "halt: paused"], ids=["healthy", "in trouble"])
def test_card__of_a_paused_portfolio_says_so_with_the_reason(
    shelf: ServedPortfolios, monkeypatch: pytest.MonkeyPatch, is_hard: bool, trouble: str
) -> None:
    now_s = int(time.time())
    report = RunReport("a", process_identity(), True, 3_600, now_s, now_s, cycles=1, last_cycle_s=now_s, last_good_cycle_at_s=now_s)
    pause = {"paused": True, "pause_reason": "lunch", "pause_hard": is_hard, "pause_signed": ["signatures of i7: 2"]}
    card = calm_card(shelf, monkeypatch, replace(report, trouble=trouble), {}, pause)
    assert re.findall('<p class="say">([^<]*)', card) == [f"Paused{' (hard)' * is_hard}: lunch; but signatures of i7: 2"]
    assert re.findall('class="pill">([^<]+)<', card) == ["Needs you" if trouble else "Paused"]


@pytest.mark.parametrize(("is_done", "label"), [(True, "Stopped"), (False, "Needs you")], ids=["done", "not finished"])
def test_card__of_a_stopped_portfolio_says_so_and_offers_no_control(
    shelf: ServedPortfolios, monkeypatch: pytest.MonkeyPatch, is_done: bool, label: str
) -> None:
    stop = {"done": is_done, "since": "2026-11-30 15:40:00 UTC", "to_stable": False, "to": None}
    pause = {"paused": False, "pause_reason": "", "pause_hard": False, "pause_signed": [], "stop": stop}
    step = {"outcome": "halt", "reason": "stopped"}
    card = calm_card(shelf, monkeypatch, None, step, pause)
    assert re.findall('class="pill">([^<]+)<', card) == [label]
    assert f"{stop_text(stop)}." in card
    assert not re.findall('action="[^"]+/controls/[^"]+"', card)


def test_card__of_a_run_whose_report_is_unread_says_unknown(shelf: ServedPortfolios, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = shelf.parts[0].opened_parts.cache  # type: ignore[union-attr]  # it is open
    calm_card(shelf, monkeypatch, None, {})
    monkeypatch.setattr(cache, "_seen_report", None)
    assert re.findall('class="pill">([^<]+)<', first_card(shelf)) == ["Unknown"]

    async def fail(*_: object) -> NoReturn:
        raise OperatorNeeded("the store is damaged", "restore it")

    monkeypatch.setattr(cache, "call", fail)
    with pytest.raises(OperatorNeeded, match="the store is damaged"):
        asyncio.run(cache._read_report(CacheProcess.STORED))
    assert re.findall('<p class="alarm">([^<]*)', first_card(shelf)) == ["not read: the store is damaged (restore it)"]
    monkeypatch.setattr(cache, "call", lambda *_: asyncio.sleep(0))
    asyncio.run(cache._read_report(CacheProcess.STORED))
    card = first_card(shelf)
    assert "not read" not in card
    assert re.findall('class="pill">([^<]+)<', card) == ["Not running"]


@pytest.mark.parametrize(
    ("is_running", "problem"), [(True, []), (False, ["last cycle unfinished: no outcome"])], ids=["running", "stopped"]
)
def test_card__unfinished_cycle_of_a_running_run_is_no_problem(
    shelf: ServedPortfolios, monkeypatch: pytest.MonkeyPatch, is_running: bool, problem: list[str]
) -> None:
    now_s = int(time.time())
    report = RunReport("a", process_identity(), True, 3_600, now_s, now_s, cycles=1, last_cycle_s=now_s, last_good_cycle_at_s=now_s)
    report = report if is_running else replace(report, ended_s=now_s)
    card = calm_card(shelf, monkeypatch, report, {"outcome": "unfinished", "reason": "no outcome"})
    assert re.findall('<p class="alarm">([^<]*)', card) == problem


def test_the_list_is_sent_again_only_after_a_change(shelf: ServedPortfolios) -> None:
    cookie = shelf.enter(0)
    text = shelf.ask("/", Cookie=cookie)[2].decode()
    again = text.split('hx-get="')[1].split('"')[0]
    assert shelf.ask(again, Cookie=cookie, HX_Request="true")[0] == 204
    assert shelf.ask(again, Cookie=cookie)[0] == shelf.ask(again, HX_Request="true")[0] == 200  # opened; another visitor
    opened = shelf.parts[0].opened_parts
    shelf.loop.call_soon_threadsafe(opened.cache.announce_change)
    until(lambda: shelf.ask(again, Cookie=cookie, HX_Request="true")[0] == 200)


def test_list__hides_from_strangers_when_a_portfolio_is_active(shelf: ServedPortfolios) -> None:
    again = shelf.ask("/")[2].decode().split('hx-get="')[1].split('"')[0]
    opened = shelf.parts[1].opened_parts
    shelf.loop.call_soon_threadsafe(opened.cache.announce_change)
    time.sleep(0.05)
    assert shelf.ask(again, HX_Request="true")[0] == 204


@pytest.mark.parametrize("path", [*(page.path for page in PAGES), "/controls", "/history/abc", "/events"])
def test_a_session_of_one_opens_no_page_and_no_stream_of_another(shelf: ServedPortfolios, path: str) -> None:
    cookie = shelf.enter(0)
    renamed = cookie.replace(shelf.parts[0].reach.cookie_name, shelf.parts[1].reach.cookie_name)
    for sent in ("", cookie, renamed, f"{cookie}; {renamed}"):
        code, headers, body = shelf.ask(B + path, Cookie=sent)
        assert code in (303, 401)
        assert b"data" not in body
        assert code == 401 or headers["location"].startswith(f"{B}/login")
        assert shelf.ask(B + path, Cookie=sent, HX_Request="1")[1]["hx-redirect"] == f"{B}/login"


def test_forms_and_logins_of_one__are_worth_nothing_at_another(shelf: ServedPortfolios) -> None:
    mine = shelf.enter(0)
    other = shelf.enter(1)
    token = shelf.csrf("/p/a/alerts", mine)
    kept = shelf.parts[0].opened_parts
    session = kept.access.find_session(mine.partition("=")[2], touch=False)
    session.reviews["review"] = PlanReview(
        "rebalance", (), plan_document={"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": {}}
    )
    both = f"{mine}; {other}"
    assert shelf.ask("/p/a/controls/review/review", Cookie=mine)[0] == 200
    assert shelf.ask(f"{B}/controls/review/review", Cookie=both)[0] == 404
    for path in ("/controls/pause", "/controls/review/review", "/logout"):
        assert shelf.post(B + path, {"csrf": token, "plan_hash": "ab" * 32}, both)[0] == 403
        code, headers, _ = shelf.post(B + path, {"csrf": token}, mine)
        assert (code, headers["location"]) == (303, f"{B}/login" if path == "/logout" else f"{B}/login?to=/controls&unsent=1")
    nonce = shelf.ask("/p/a/login")[1]["set-cookie"].split(";")[0]
    form = shelf.csrf("/p/a/login", nonce)
    fields = {"csrf": form, "name": "ann", "password": "x", "code": "000000"}
    assert nonce.startswith(f"{shelf.parts[0].reach.cookie_name}-form=")
    assert shelf.post(f"{B}/login", fields, nonce.replace(shelf.parts[0].reach.cookie_name, shelf.parts[1].reach.cookie_name))[0] == 403
    code, headers, _ = shelf.post("/p/a/logout", {"csrf": token}, both)
    assert (code, headers["location"]) == (303, "/p/a/login")
    assert shelf.ask("/p/a/alerts", Cookie=both)[0] == 303
    assert shelf.ask(f"{B}/alerts", Cookie=both)[0] == 200


def test_a_token_of_one_is_none_at_another(shelf: ServedPortfolios) -> None:
    opened = shelf.parts[0].opened_parts
    _, text = TokenFile(opened.cache.store_path).add("own", [TokenScope.READ], 3600, int(time.time()))
    codes = [shelf.ask(f"{prefix}/api/v1/nothing", Authorization=f"Bearer {text}")[0] for prefix in ("/p/a", B, "")]
    assert codes == [404, 401, 404]
    assert b'"servers": [{"url": "/p/a/api/v1"}]' in shelf.ask("/p/a/api/v1/openapi.json")[2]


def test_each_page_links_below_its_prefix_and_back_to_the_list(shelf: ServedPortfolios) -> None:
    cookie = shelf.enter(1)
    for path in (*(page.path for page in PAGES), "/controls"):
        text = shelf.ask(B + path, Cookie=cookie)[2].decode()
        places = set(re.findall(r'(?:href|action|hx-get|data-events)="(/[^"]*)"', text)) - {"/"}
        assert all(place.startswith((f"{B}/", "/static/")) for place in places)
        assert 'href="/"' in text
        assert HOSTILE not in text
        assert "&lt;img src=x onerror" in text.split("<title>")[1].split("</title>")[0]
        if path != "/":
            assert shelf.ask(f"{B}{path}/", Cookie=cookie)[0] == 404  # led nowhere, and by a proxy without TLS
    assert shelf.ask(B, Cookie=cookie)[1]["location"] == f"{B}/"


def test_every_link_of_a_template_begins_with_the_prefix() -> None:
    for path in (artifacts.WEB_FOLDER / "templates").glob("*.html"):
        places = re.findall(r'(?:href|action|hx-get|data-events)="(/[^"]*)"', path.read_text(encoding="utf-8"))
        loose = [place for place in places if not place.startswith("/static/") and place != "/" and "/?seen=" not in place]
        assert loose == [], (path.name, "write {{ prefix }}/…")


@pytest.mark.parametrize("path", ["/", "/p/a/", "/p/gone/", "/static/dashboard.css"])
def test_a_foreign_host_and_other_verbs_are_refused_everywhere(shelf: ServedPortfolios, path: str) -> None:
    assert shelf.ask(path, Host="evil.example")[0] == 421
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert shelf.ask(path, method)[0] == 405
    assert shelf.ask(path, "POST", "x=1")[0] in (403, 405)


def test_without_users_each_reads_and_the_reason_is_shown(tmp_path: Path) -> None:
    with ServedPortfolios(tmp_path, ("a", "b", "gone"), users=0) as shelf:
        text = shelf.ask("/")[2].decode()
        assert "the disk is gone" in text
        assert len({of.split(".")[1] for of, *_ in figures(text)}) == 2
        assert shelf.ask("/p/b/alerts")[0] == 200
        assert shelf.ask("/p/b/controls")[0] == 404
        code, _, body = shelf.ask("/p/gone/alerts")
        assert code == 503
        assert b"data" not in body
        assert shelf.ask("/p/none/")[0] == 404
        board = shelf.parts[0].opened_parts.cache  # type: ignore[union-attr]
        board.read_errors[app_modules.dashboard.live_documents] = TrimtabError("no endpoint answers")
        assert "not read: no endpoint answers" in shelf.ask("/")[2].decode()
        board.read_errors.clear()
        board.documents["status"] |= {"decision": {"kind": "halt", "reason": MARKUP}, "paused": True, "pause_hard": True}
        board.documents["history"]["steps"][0] |= {"outcome": "refused", "reason": "refused: a guard"}
        board.documents["controls"] = {"waiting": {"plan_hash": "ab"}}
        text = shelf.ask("/")[2].decode()
        assert MARKUP not in text
        assert "halt: &#34;&#39;" in text
        assert "last cycle refused: a guard" in text
        assert "Paused (hard)" in text
        assert "a plan waits for a confirmation" in text


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Gives the store of the config mine.toml a beginning."""
    loaded = load_config(agents.config(tmp_path))

    def begin() -> Path:
        open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native).close()
        return loaded.path

    yield begin


def test_a_portfolio_without_a_store_is_served_once_it_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: Callable[[], Path]
) -> None:
    monkeypatch.setattr(portfolios, "OPEN_RETRY_S", 0.02)
    monkeypatch.setattr(portfolios, "AppProcess", InProcessAppProcess)
    monkeypatch.setattr(portfolios, "DocumentCache", StaticDocumentCache)
    with ServedPortfolios(tmp_path, ("a", "mine"), users=0) as shelf:
        late = shelf.parts[1]
        assert shelf.ask("/p/mine/alerts")[0] == 503
        until(lambda: "store:" in str(late.error))
        begun()
        until(lambda: late.opened_parts is not None)
        same = create_portfolios([late.config], [("same", "same")], Reach(port=1))[0]
        start = asyncio.run_coroutine_threadsafe(same.read(shelf.opening), shelf.loop).result(30)
        same.begin_serving(start, shelf.opening)
        assert same.opened_parts is None
        assert "mine.db is that of mine" in str(same.error)
        assert shelf.ask("/p/mine/alerts")[0] == 200
        text = shelf.ask("/")[2].decode()
        assert "Reading." in text
        assert "ethereum" in text.split('href="/p/mine/"')[1]


def test_beyond_this_machine_no_portfolio_is_open_without_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: Callable[[], Path]
) -> None:
    monkeypatch.setattr(portfolios, "AppProcess", InProcessAppProcess)
    with pytest.raises(ConfigError) as refused:
        serve_portfolios([begun(), tmp_path / "none.toml"], "127.0.0.1", 0, print, behind_proxy(tmp_path))
    assert refused.value.field == "--host"
    assert "trimtab user add" in refused.value.remedy


@pytest.mark.slow
def test_command__serves_the_readable_and_controls_the_right_one(tmp_path: Path, begun: Callable[[], Path]) -> None:
    import pyotp

    mine = begun()
    other = agents.config(tmp_path, "other")
    secret = pyotp.random_base32()
    loaded = load_config(other)
    open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native).close()
    for store in ("mine.db", "other.db"):
        open_user_file(tmp_path / f"{store}.users").add("ann", HASH, secret, False, 1)
    named = [word for path in (mine, other, tmp_path / "none.toml") for word in ("--config", str(path))]
    process = start("serve", "--port", "0", "--json", *named)
    try:
        document = first_document(process)
        assert [(portfolio["name"], bool(portfolio["error"])) for portfolio in document["portfolios"]] == [
            ("mine", False),
            ("other", False),
            ("none", True),
        ]
        browser = build_opener(HTTPCookieProcessor())
        origin = document["url"].rstrip("/")

        def send(path: str, form: str, **fields: str) -> str:
            csrf = re.findall('name="csrf" value="([^"]+)"', browser.open(origin + form).read().decode())[0]
            if path.endswith("login"):  # the form may have taken longer than a code is valid
                fields["code"] = pyotp.TOTP(secret).now()
            body = urlencode({"csrf": csrf, **fields}).encode()
            return str(browser.open(Request(origin + path, body, {"Origin": origin})).url)

        assert send("/p/mine/login", "/p/mine/login", name="ann", password=PASSWORD) == f"{origin}/p/mine/"
        assert send("/p/mine/controls/pause", "/p/mine/controls", reason="smoke") == f"{origin}/p/mine/controls"
        assert "/p/other/login" in browser.open(f"{origin}/p/other/controls").url
        listed = browser.open(f"{origin}/").read().decode()
        assert "none.toml" in listed
        assert 'href="/p/other/login"' in listed
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
    for config, kinds in ((mine, ["pause"]), (other, [])):
        assert [control["kind"] for control in list_controls(config)["controls"]] == kinds
