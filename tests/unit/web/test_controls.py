"""Controls of the dashboard under attack: who may ask, which plan is confirmed, and how often."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.app.controls import queue
from agent.app.controls.queue import list_controls
from agent.app.documents.research import EditBacktestDocument
from agent.app.settings.shown import settings_document
from agent.config.load import load_config, load_config_text
from agent.config.writing.edits import apply_changes, parse_changes
from agent.errors import ConfigError, Refused, Retryable, TrimtabError
from agent.model import ControlKind, ControlOrigin, ControlSubmission, ShownPlan
from agent.observe.push import NEWEST_ALERTS_ANCHOR
from agent.ports.users import UsersPlace
from agent.store import Store, open_store
from agent.store.files.locks import service_lock
from agent.store.files.secret import ensure_secret
from agent.store.files.users import open_user_file
from agent.units import parse_raw
from agent.web import app_modules
from agent.web import controls as web_controls
from agent.web.controls import BACKTEST_NICENESS, FIELDS_BY_KIND, MAX_BACKTESTS, MAX_REVIEWS, ControlPages, form_arguments, requested_review
from agent.web.pages import Renderer
from agent.web.reach import Reach
from agent.web.reading import AppProcess
from agent.web.sessions import MAX_REVIEW_AGE_S, PlanReview
from agent.wiring import open_store_offline
from agent.wiring.transactor import lock_arguments
from tests.cli.documents import misfits
from tests.support import agents
from tests.support.dashboards import (
    ADDRESS,
    CONTROLS,
    DEVICES,
    HOSTILE,
    MARKUP,
    PATIENCE_S,
    STRATEGIES,
    TARGET,
    Served,
    StaticDocumentCache,
    figures,
    golden_document,
    until,
)
from tests.support.pages.reviews import edit_backtest, review
from tests.support.sites import FULL, READ_ONLY, Site


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agents.config(tmp_path_factory.mktemp("controls"))


@pytest.fixture(scope="module")
def site(config: Path) -> Iterator[Site]:
    with Site(config.parent / "mine.db.users", config=str(config)) as site:
        yield site


@contextmanager
def store_of(config: Path) -> Iterator[Store]:
    """The store of the config."""
    loaded = load_config(config)
    store = open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native)
    try:
        yield store
    finally:
        store.close()


def queued(config: Path) -> list[tuple[str, str, str]]:
    """Kind, requester and state of each control, oldest first."""
    with store_of(config) as store:
        return [
            (control.control.kind.value, control.control.asked_by, control.state.value) for control in reversed(store.controls.newest())
        ]


def shown_document(config: Path, kind: ControlKind, number: int, arguments: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """The document of a plan that was shown, as its preview stores it."""
    plan = ShownPlan(kind, arguments, (("number", str(number)),), (), int(time.time()), "[[], {}]")
    plan = plan.sealed(ensure_secret(config.parent / "mine.db"))
    with store_of(config) as store:
        (store.controls.store_offer if kind is ControlKind.CONFIRM else store.controls.record_shown)(plan)
    return {"plan_hash": plan.hash, "reason": "", "moves": ["-1 WETH"], "document": {}}


def last_event(site: Site) -> tuple[str, str, str]:
    event = open_user_file(site.file).events(1)[0]
    return event.kind.value, event.user, event.detail


def test_a_pause_takes_effect_and_is_in_both_logs(site: Site, config: Path) -> None:
    cookie = site.enter()
    code, headers, _ = site.post("/controls/pause", {"csrf": site.token(cookie), "reason": MARKUP, "hard": ""}, cookie)
    assert (code, headers["location"]) == (303, "/controls")
    with store_of(config) as store:
        assert (store.pause_switch.read().reason, store.pause_switch.read().hard) == (MARKUP, False)
    assert queued(config)[-1] == ("pause", "ann", "done")
    assert last_event(site) == ("control", "ann", "pause")
    site.board.documents["controls"] = list_controls(config)
    text = site.ask("/controls", Cookie=cookie)[2].decode()
    assert MARKUP not in text
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    code, headers, _ = site.post("/controls/resume", {"csrf": site.token(cookie)}, cookie)
    assert code == 303
    assert queued(config)[-1][:2] == ("resume", "ann")


def test_the_reason_of_the_owner_stands_in_the_column_of_reasons(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [{"name": "hard", "value": "yes"}, {"name": "reason", "value": "holidays"}]
    control = {**CONTROLS["controls"][0], "kind": "pause", "state": "done", "reason": "", "arguments": arguments, "result": []}
    monkeypatch.setitem(site.board.documents, "controls", CONTROLS | {"waiting": None, "controls": [control]})
    text = site.ask("/controls", Cookie=site.enter())[2].decode()
    cells = [re.sub("<[^>]*>", " ", cell).split() for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", text.split("<tbody>")[1], re.S)]
    assert [cells[1], cells[4]] == [["pause", "hard", "yes"], ["holidays"]]


def test_each_page_of_a_user_follows_the_queue(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[object] = []
    monkeypatch.setattr(site.board, "follow", followed.append)
    for path in ("/", "/controls"):
        site.ask(path)
        assert followed == [], "a stranger"
        site.ask(path, Cookie=site.enter())
        assert set(followed) == {app_modules.queue.dashboard_controls}
        followed.clear()


def test_paper_stop__is_queued_for_a_going_paper_run_alone(site: Site, config: Path) -> None:
    cookie = site.enter()
    paper = replace(load_config(config), is_paper=True)
    before = queued(config)
    site.board.documents["controls"] = list_controls(config)
    form = {"csrf": site.token(cookie), "paper": "yes", "amount": "5"}

    def answer(path: str, **ticked: str) -> str:
        _, headers, body = site.post(path, form | ticked, cookie)
        return (site.ask(headers["location"], Cookie=cookie)[2] if "location" in headers else body).decode()

    def answer_stop(**ticked: str) -> str:
        question = site.post("/controls/stop", form, cookie)[1]["location"]
        text = site.ask(question, Cookie=cookie)[2].decode()
        assert "Yes, stop this paper run" in text
        assert "Nothing is sold" in text
        assert "hx-get" not in text, "an update would clear the box"
        return answer(question, plan_hash="", **ticked)

    assert "there are no paper books yet" in unescape(answer_stop(yes="yes"))
    with open_store_offline(paper) as (store, _):
        assert "no paper run goes on" in answer_stop(yes="yes")
        with service_lock(*lock_arguments(paper)):
            assert "withdraw: not on paper" in answer("/controls/withdraw")
            assert "To stop, tick the box as well." in answer_stop()
            assert not store.controls.newest(), "it is asked first"
            assert "Requested controls" in answer_stop(yes="yes")
            assert queue.dashboard_controls(str(config))["paper_run"]["served"] is True  # type: ignore[index]  # a document
        (controls,) = store.controls.newest()
        assert (controls.control.kind, controls.control.asked_by, controls.state.value) == (ControlKind.STOP, "ann", "queued")
        assert controls.control.is_genuine(ensure_secret(config.parent / "mine.paper.db"))
    assert queued(config) == before
    assert last_event(site) == ("control", "ann", "paper stop")
    for path in config.parent.glob("mine.paper.db*"):
        path.unlink()
    assert queue.dashboard_controls(str(config))["paper_run"] == {}


def test_every_page_says_that_a_plan_waits_and_leads_to_it(site: Site) -> None:
    site.board.documents["controls"] = {"controls": [], "served": True, "waiting": {"moves": ["-1 WETH", HOSTILE]}}
    cookie = site.enter()
    for path in ("/", "/history", "/settings"):
        code, _, body = site.ask(path, Cookie=cookie)
        assert code == 200, path
        assert "−1 WETH, &lt;img".encode() in body, path
        assert b'<a href="/controls">Review it</a>' in body, path
    site.board.documents["controls"]["served"] = False
    assert "No run would carry it out now" in (unserved := site.ask("/", Cookie=cookie)[2].decode())
    assert "Review it" not in unserved
    site.board.documents["controls"]["waiting"] = None
    assert b"Review it" not in site.ask("/", Cookie=cookie)[2]


def test_alerts_page__offers_this_device_once_a_run_has_its_key(site: Site, config: Path) -> None:
    cookie = site.enter()
    site.board.documents["controls"] = {"controls": [], "served": True, "waiting": None}
    site.board.documents["devices"] = {"key": "", "devices": []}
    assert b"webpush://" in site.ask("/alerts", Cookie=cookie)[2]
    site.board.documents["devices"] = DEVICES
    site.board.documents["alerts"]["last"] = site.board.documents["alerts"]["open"]
    text = site.ask("/alerts", Cookie=cookie)[2].decode()
    assert f'data-key="{DEVICES["key"]}"' in text
    assert HOSTILE not in text
    assert f'id="{NEWEST_ALERTS_ANCHOR.removeprefix("#")}"' in text
    assert "is read-only" in (read_only := site.ask("/alerts", Cookie=site.enter(READ_ONLY))[2].decode())
    assert "/controls/device" not in read_only
    fields = {"csrf": site.token(cookie), "endpoint": "https://web.push.apple.com/a", "key": "B" + "A" * 86, "auth": "s" * 22}
    assert site.post("/controls/device", {**fields, "page": "//evil.org/alerts"}, cookie)[1]["location"].startswith("/controls/review")
    code, headers, _ = site.post("/controls/device", {**fields, "page": "/alerts", "remove": ""}, cookie)
    assert (code, headers["location"]) == (303, "/controls")
    assert queued(config)[-1] == ("device", "ann", "queued")
    assert last_event(site) == ("control", "ann", "device")


@pytest.mark.parametrize("kind", FIELDS_BY_KIND)
def test_a_stolen_read_only_session_shows_and_controls_nothing(site: Site, config: Path, kind: str) -> None:
    cookie = site.enter(READ_ONLY)
    before = queued(config)
    for page in ("/", "/controls", "/plan", "/settings", "/strategies", "/liquidity"):
        assert b'action="/controls' not in site.ask(page, Cookie=cookie)[2], page
    assert b"eve is read-only. Log in as another user" in site.ask("/", Cookie=cookie)[2]
    assert site.post(f"/controls/{kind}", {"csrf": site.token(cookie)}, cookie)[0] == 403
    assert last_event(site) == ("control_refused", "eve", f"/controls/{kind} read-only")
    path = review(site, cookie, kind, {"plan_hash": "ab", "reason": "", "moves": [], "document": {}})
    assert b'name="plan_hash"' not in site.ask(path, Cookie=cookie)[2]
    assert site.post(path, {"csrf": site.token(cookie), "plan_hash": "ab"}, cookie)[0] == 403
    assert queued(config) == before


def test_user_without_the_role__is_refused_whatever_the_page_has(site: Site, config: Path) -> None:
    """The page learns of it within two seconds; the process that submits reads the role each time."""
    resume = ControlSubmission(ControlKind.RESUME, (), "ann", ControlOrigin.DASHBOARD)
    for user in (READ_ONLY, 99):
        with pytest.raises(Refused) as refused:
            queue.submit_for_user(str(config), UsersPlace(str(site.file)), user, resume, "192.0.2.1")
        assert refused.value.code == "access"
        assert last_event(site)[0] == "control_refused"


@pytest.mark.parametrize("path", ["/controls/pause", "/controls/withdraw", "/controls/review/review"])
def test_csrf_controls_need_session_token_and_origin(site: Site, config: Path, path: str) -> None:
    cookie = site.enter()
    other = site.enter()
    before = queued(config)
    token = site.token(cookie)
    for fields, sent, headers in (
        ({}, cookie, {}), ({"csrf": site.token(other)}, cookie, {}), ({"csrf": token}, cookie, {"Origin": "https://evil.example"}),
        ({"csrf": token}, cookie, {"Sec_Fetch_Site": "cross-site"}),
    ):  # fmt: skip
        assert site.post(path, fields, sent, **headers)[0] == 403
    code, answered, _ = site.post(path, {"csrf": token}, "")
    assert (code, answered["location"]) == (303, "/login?to=/controls&unsent=1")
    assert "was not carried out" in site.ask(answered["location"])[2].decode()
    assert site.ask(path, Cookie=cookie)[0] in (404, 405)  # never by a link
    assert queued(config) == before


def test_confirmed_plan__is_queued_with_its_hash_alone(site: Site, config: Path) -> None:
    cookie = site.enter()
    arguments = (("amount", "5"),)
    document = shown_document(config, ControlKind.WITHDRAW, 1, arguments)
    path = review(site, cookie, "withdraw", document, arguments)
    assert document["plan_hash"] in site.ask(path, Cookie=cookie)[2].decode()
    fields = {"csrf": site.token(cookie), "plan_hash": document["plan_hash"], "amount": "5000", "to": "0x" + "11" * 20}
    assert site.post(path, fields, cookie)[0] == 303
    with store_of(config) as store:
        newest = store.controls.newest(1)[0].control
    assert (newest.kind, newest.arguments, newest.plan_hash) == (ControlKind.WITHDRAW, arguments, document["plan_hash"])
    assert last_event(site) == ("control", "ann", f"withdraw {document['plan_hash'][:16]}")


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
def test_review__says_that_the_market_may_move_only_of_trades(site: Site, kind: str, document: dict[str, Any], warns: bool) -> None:
    cookie = site.enter()
    plan_document = {"plan_hash": "ab" * 32, "reason": "", "moves": [], "document": document}
    text = site.ask(review(site, cookie, kind, plan_document, (("target", "WETH=40%"),)), Cookie=cookie)[2].decode()
    assert "and no other." in text
    assert ("If the market moves too far" in text) is warns


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


def test_confirmed_control__is_on_the_page_before_the_list(site: Site, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = site.enter()
    note = "Under way: withdraw, requested. The run takes it within seconds"
    monkeypatch.setitem(site.board.documents, "controls", {"controls": [], "served": True, "waiting": None})
    assert note not in site.ask("/controls", Cookie=cookie)[2].decode()
    document = shown_document(config, ControlKind.WITHDRAW, 9, (("amount", "9"),))
    path = review(site, cookie, "withdraw", document, (("amount", "9"),))
    location = site.post(path, {"csrf": site.token(cookie), "plan_hash": document["plan_hash"]}, cookie)[1]["location"]
    for _ in range(2):
        assert note in site.ask(location, Cookie=cookie)[2].decode(), "a list that is old does not replace it"
    monkeypatch.setitem(site.board.documents, "controls", queue.dashboard_controls(str(config))["controls"])
    assert note not in site.ask(location, Cookie=cookie)[2].decode()
    monkeypatch.delitem(site.board.documents, "controls")
    assert note not in site.ask(location, Cookie=site.enter())[2].decode(), "another session"


def test_result_of_a_test__stays_when_the_alerts_cannot_be_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = site.enter()
    session = site.access.find_session(cookie.partition("=")[2], touch=False)
    session.alert_tests["phone"] = "Test delivered at 12:00 UTC."
    for document in ({**site.board.documents["alerts"], "targets": [TARGET]}, {"error": "no answer in time"}):
        monkeypatch.setitem(site.board.documents, "alerts", document)
        assert site.ask("/alerts", Cookie=cookie)[2].decode().count("Test delivered at 12:00 UTC.") == 1


def test_an_expired_or_changed_plan_cannot_be_confirmed(site: Site, config: Path) -> None:
    cookie = site.enter()
    before = queued(config)
    token = site.token(cookie)
    document = shown_document(config, ControlKind.REBALANCE, 2)
    path = review(site, cookie, "rebalance", document)
    assert site.post(path, {"csrf": token, "plan_hash": "0" * 64}, cookie)[0] == 409  # the form showed another
    session = site.access.find_session(cookie.partition("=")[2], touch=False)
    session.reviews[path.rpartition("/")[2]].began_s -= MAX_REVIEW_AGE_S
    assert site.post(path, {"csrf": token, "plan_hash": document["plan_hash"]}, cookie)[0] == 409  # expired
    assert b'name="plan_hash"' not in site.ask(path, Cookie=cookie)[2]
    forgotten = review(site, cookie, "rebalance", {**document, "plan_hash": "1" * 64})
    code, _, body = site.post(forgotten, {"csrf": token, "plan_hash": "1" * 64}, cookie)
    assert code == 409
    assert b'role="alert"' in body
    assert last_event(site)[0] == "control_refused"
    other = review(site, cookie, "invest", document)
    assert site.post(other, {"csrf": token, "plan_hash": document["plan_hash"]}, cookie)[0] == 409  # shown for another request
    waits = review(site, cookie, "rebalance", None)
    refused = review(site, cookie, "rebalance", {**document, "plan_hash": "", "reason": "a guard refused"})
    for path in (waits, refused):
        assert site.post(path, {"csrf": token, "plan_hash": ""}, cookie)[0] == 409
    assert queued(config) == before


@pytest.mark.parametrize("kind", [ControlKind.REBALANCE, ControlKind.CONFIRM])
def test_of_two_confirmations_at_once_one_is_queued(site: Site, config: Path, kind: ControlKind) -> None:
    cookie = site.enter()
    document = shown_document(config, kind, 3)
    path = review(site, cookie, kind.value, document)
    token = site.token(cookie)
    before = len(queued(config))
    codes = []

    def send() -> None:
        codes.append(site.post(path, {"csrf": token, "plan_hash": document["plan_hash"]}, cookie)[0])

    threads = [threading.Thread(target=send) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [303, 409, 409, 409, 409]
    assert len(queued(config)) == before + 1


def test_a_stop_needs_the_second_yes(site: Site, config: Path) -> None:
    cookie = site.enter()
    before = len(queued(config))
    document = shown_document(config, ControlKind.STOP, 4)
    path = review(site, cookie, "stop", document)
    fields = {"csrf": site.token(cookie), "plan_hash": document["plan_hash"]}
    assert site.post(path, fields, cookie)[0] == 409
    assert len(queued(config)) == before
    assert site.post(path, {**fields, "yes": "yes"}, cookie)[0] == 303
    assert queued(config)[-1] == ("stop", "ann", "queued")


def test_a_review_belongs_to_its_session(site: Site, config: Path) -> None:
    cookie = site.enter()
    other = site.enter(2)
    document = shown_document(config, ControlKind.REBALANCE, 5)
    path = review(site, cookie, "rebalance", document)
    assert site.ask(path, Cookie=other)[0] == 404
    assert site.post(path, {"csrf": site.token(other), "plan_hash": document["plan_hash"]}, other)[0] == 404


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


def test_flood_of_requests__is_planned_only_as_far_as_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = list[str]()
    go = threading.Event()

    class Planner(AppProcess):
        async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
            planned.append(dict(arguments[-1])["amount"])
            await asyncio.to_thread(go.wait, PATIENCE_S)
            raise Refused("not planned")

    monkeypatch.setattr(web_controls, "AppProcess", Planner)
    with Site(tmp_path / "mine.db.users") as site:
        cookie = site.enter()
        other = site.enter(2)
        csrf = site.token(cookie)
        last = site.token(other)
        for number in range(MAX_REVIEWS + 12):
            site.post("/controls/withdraw", {"csrf": csrf, "amount": str(number)}, cookie)
        page = site.post("/controls/withdraw", {"csrf": last, "amount": "mine"}, other)[1]["location"]
        go.set()
        until(lambda: b"not planned" in site.ask(page, Cookie=other)[2])
    assert planned == ["0", *(str(12 + number) for number in range(MAX_REVIEWS)), "mine"]


def test_without_users_there_are_no_controls() -> None:
    with Served() as served:
        assert served.ask("/controls")[0] == served.ask("/controls/review/x")[0] == 404
        assert served.ask("/controls/pause", "POST", "")[0] == 405
        assert b"/controls" not in served.ask("/plan")[2]
        overview, settings = (served.ask(path)[2].decode() for path in ("/", "/settings"))
    assert "/controls" not in overview
    assert re.findall(r"<button [^>]*disabled>([^<]*)<", overview) == [
        "Rebalance now", "Pause", "Edit weights", "Invest", "Withdraw", "Stop…", "Edit weights",
    ]  # fmt: skip
    assert 'Edit weights</button> <small class="soft">Read-only: this dashboard has no users.</small>' in overview
    assert settings.count("Read-only: this dashboard has no users.") == settings.count("disabled>") > 1
    assert "<code>trimtab user add NAME</code>" in overview


def test_each_form_has_the_fields_that_are_read_from_it(site: Site) -> None:
    cookie = site.enter()
    forms = dict[str, set[str]]()
    site.board.documents["controls"] = {"controls": [], "served": True, "waiting": {"moves": []}}
    site.board.documents["devices"] = DEVICES
    for page, is_paused in (("/", False), ("/controls", False), ("/controls", True), ("/alerts", False), ("/settings", False),
                            ("/strategies", False), ("/liquidity", False)):  # fmt: skip
        site.board.documents["status"]["paused"] = is_paused
        text = site.ask(page, Cookie=cookie)[2].decode()
        for kind, form in re.findall(r'<form [^>]*action="/controls/([a-z]+)">(.*?)</form>', text, re.S):
            forms.setdefault(kind, set()).update(map(unescape, re.findall(r'<(?:input|select|textarea) [^>]*?name="([^"]+)"', form)))
    assert all("csrf" in names for names in forms.values())
    names_by_kind = {
        kind: {name for name in names if not name.startswith(("target:", "set:", "was:"))} - {"csrf", "form"}
        for kind, names in forms.items()
    }
    assert names_by_kind == {kind: set(names) for kind, names in FIELDS_BY_KIND.items()}
    targets = {f"{part}:{symbol}" for part in ("target", "was") for symbol in (HOSTILE, "B")}
    assert {field for field in forms["edit"] if ":" in field} == targets | {f"set:{MARKUP}", f"was:{MARKUP}"}


def edit_error(config: Path, *arguments: tuple[str, str]) -> str:
    """What is said of an edit of the config with these arguments."""
    pairs = {name: [text for key, text in arguments if key == name] for name in ("set", "target")}
    with pytest.raises(ConfigError) as error:
        load_config_text(
            apply_changes(config.read_text(), parse_changes(pairs["set"], pairs["target"], (), ())), config, "the edited config"
        )
    return str(error.value)


def amount_error(_: Path, *arguments: tuple[str, str]) -> str:
    with pytest.raises(ConfigError) as error:
        parse_raw(dict(arguments)["amount"], 6, "AMOUNT")
    return str(error.value)


WEIGHTS = {"target:WETH": "40,00", "was:WETH": "50.00", "target:USDC": "50.00", "was:USDC": "50.00"}


@pytest.mark.parametrize(
    ("kind", "typed", "error_of", "marked"),
    [
        ("withdraw", {"form": "withdraw", "amount": "60,5", "in": "WETH", "pro-rata": "yes"}, amount_error, {"amount"}),
        ("edit", {"form": "weights", **WEIGHTS, "target:WETH": "40.00"}, edit_error, {"sum", "target:WETH", "target:USDC"}),
        ("edit", {"form": "weights", **WEIGHTS, "target:WETH": "forty"}, edit_error, {"target:WETH"}),
        ("edit", {"form": "weights", "set": "policy.colour=blue"}, edit_error, {"set"}),
        ("edit", {"form": "weights", "set": "12h"}, lambda *_: "--set KEY=VALUE: invalid form", {"set"}),
        ("edit", {"form": "orders", "asset": "WETH", "stop_loss": "cheap", "entry": "1500"}, edit_error, {"stop_loss"}),
        (
            "edit",
            {"form": "edit-limits", "set:limits.slippage": "far", "was:limits.slippage": "0.3 %"},
            edit_error,
            {"set:limits.slippage"},
        ),
        ("edit", {"form": "target", "alert-target": "phone", "url_env": "not a name", "event": "error"}, None, {"url_env"}),
        ("stop", {"form": "stop", "to-stable": "yes"}, lambda *_: "no answer from two operators", set()),
    ],
    ids=["amount", "sum", "share", "setting", "no key", "order", "limit", "variable", "no field"],
)  # fmt: skip
def test_form_that_cannot_be_planned__is_shown_again_as_typed(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    typed: dict[str, str],
    error_of: Callable[..., str] | None,
    marked: set[str],
) -> None:
    config = agents.config(tmp_path, targets="WETH=50% USDC=50%")
    settings: Any = settings_document(config)
    limits = next(part for part in settings["sections"] if part["title"] == "Limits")
    limits["editable"] = ["limits.slippage"]
    monkeypatch.setitem(site.board.documents, "settings", settings)
    monkeypatch.setitem(site.board.documents, "status", golden_document("25-status"))
    request = requested_review(kind, {name: [text] for name, text in typed.items()} | {"csrf": ["x"]})
    request.error = request.error or error_of(config, *request.arguments)  # type: ignore[misc]  # the variable has an error by itself
    assert request.marked_fields == marked
    cookie = site.enter()
    session = site.access.find_session(cookie.partition("=")[2], touch=False)
    session.reviews["again"] = request
    text = site.ask("/controls/review/again", Cookie=cookie)[2].decode()
    (form,) = re.findall(rf'<form class="form" method="post" action="/controls/{kind}">(.*?)</form>', text, re.S)
    tag_by_name = {name: tag for tag in re.findall(r"<(?:input|select)[^>]*>", form) for name in re.findall(r' name="([^"]+)"', tag)}
    for name, typed_text in typed.items():
        if name in ("asset", "in"):
            assert f"<option selected>{typed_text}<" in form
        elif tag_by_name[name].startswith('<input id="c-'):
            assert " checked" in tag_by_name[name]
        elif name != "event":
            assert f'value="{"" if name in marked and name == "url_env" else typed_text}"' in tag_by_name[name]
    assert {name for name, tag in tag_by_name.items() if 'aria-invalid="true"' in tag} == marked - {"sum"}
    assert ('<output id="sum" class="down">90.00 %<' in form) is ("sum" in marked)
    assert 'id="e-review" class="alarm"' in text
    assert "popover" not in form


def test_secret_that_was_typed__is_not_in_the_form_again(site: Site) -> None:
    for typed in ("policy.cooldown=https://canary.example/key", "canary" + "a" * 64):
        assert requested_review("edit", {"form": ["weights"], "set": [typed]}).form_fields == {"form": ["weights"]}
    assert requested_review("edit", {"form": ["profile"], "profile": ["a" * 64]}).form_fields["profile"] == ["a" * 64]


TYPED_KEY = "0x" + "c4" * 32
TYPED_URL = "https://canary.example/key"
TYPED_PHRASE = " ".join(["canary"] * 12)


@pytest.mark.parametrize(
    ("kind", "field_name", "typed_text"),
    [
        pytest.param("edit", "set", f'alerts.label="{TYPED_KEY}"', id="setting"),
        pytest.param("edit", "set:alerts.targets.phone", TYPED_URL, id="field of a setting"),
        pytest.param("edit", "alert-target", TYPED_PHRASE, id="name of an alert target"),
        pytest.param("withdraw", "to", TYPED_KEY, id="address"),
    ],
)
@pytest.mark.parametrize("paper", ["", "yes"], ids=["live", "paper"])
def test_secret_that_was_typed__is_neither_kept_nor_submitted(
    site: Site, monkeypatch: pytest.MonkeyPatch, kind: str, field_name: str, typed_text: str, paper: str
) -> None:
    calls = list[object]()
    monkeypatch.setattr(site.board, "call", lambda *arguments: calls.append(arguments))
    cookie = site.enter()
    form = {"csrf": site.token(cookie), "form": "weights", field_name: typed_text, "amount": "5", "paper": paper}

    headers = site.post(f"/controls/{kind}", form, cookie)[1]

    text = site.ask(headers["location"], Cookie=cookie)[2].decode()
    assert "so it was not kept" in text
    session = site.access.find_session(cookie.partition("=")[2], touch=False)
    (kept,) = session.reviews.values()
    assert "c4c4" not in repr(kept)
    assert "canary" not in repr(kept)
    assert calls == []


def test_subscription_of_a_device__is_no_typed_secret() -> None:
    fields = {"endpoint": ["https://push.example/x"], "key": ["k"], "auth": ["a" * 64], "page": ["/"]}
    assert dict(requested_review("device", fields).arguments) == {name: texts[0] for name, texts in fields.items()}


@pytest.mark.parametrize(
    ("error", "is_queued"),
    [
        pytest.param(Refused("the queue is full"), False, id="refused"),
        pytest.param(ConfigError("no such role"), False, id="invalid"),
        pytest.param(Retryable("the process ended"), True, id="perhaps queued"),
    ],
)
def test_confirmation_that_was_not_queued__may_be_repeated(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: TrimtabError, is_queued: bool
) -> None:
    async def fail(*_: object) -> None:
        raise error

    async def answer(*_: object) -> str:
        return "an id"

    cookie = site.enter()
    path = review(site, cookie, "rebalance", {"plan_hash": "ab", "reason": "", "moves": [], "document": {}})
    form = {"csrf": site.token(cookie), "plan_hash": "ab"}
    monkeypatch.setattr(site.board, "call", fail)
    assert site.post(path, form, cookie)[0] == 409
    monkeypatch.setattr(site.board, "call", answer)
    assert site.post(path, form, cookie)[0] == (409 if is_queued else 303)


def test_refused_request__shows_its_form_until_it_is_queued() -> None:
    request = PlanReview("withdraw", (), form_fields={"form": ["withdraw"], "amount": ["50"]})
    assert not request.asks_again, "not planned yet"
    request.plan_document = {"plan_hash": "ab", "reason": ""}
    assert not request.asks_again
    request.plan_document = {"plan_hash": "", "reason": "insufficient balance: short by 5"}
    assert (request.asks_again, request.marked_fields) == (True, {"amount"})
    request.is_queued = True
    assert not request.asks_again


def test_an_unknown_kind_is_refused(site: Site) -> None:
    cookie = site.enter()
    assert site.post("/controls/adopt", {"csrf": site.token(cookie)}, cookie)[0] == 404


def test_form__gives_what_is_filled_in_and_changed_targets() -> None:
    assert form_arguments("pause", {"reason": [" smoke "], "hard": ["yes"], "csrf": ["x"]}) == (("reason", "smoke"), ("hard", "yes"))
    assert form_arguments("withdraw", {"amount": ["5"], "in": [""], "to": [" "]}) == (("amount", "5"),)
    fields = {"target:WETH": ["35 %"], "was:WETH": ["40.00"], "target:USDC": ["60.00"], "was:USDC": ["60.00"], "in-slices": ["yes"]}
    assert form_arguments("edit", fields) == (("in-slices", "yes"), ("target", "WETH=35%"))
    order = {"asset": ["WETH"], "stop_loss": [" 20% "], "entry": ["1500"], "band": [""]}
    levels = (("set", 'portfolio.assets.WETH.stop_loss="20%"'), ("set", 'portfolio.assets.WETH.entry="1500"'))
    assert form_arguments("edit", order) == levels
    alert = (("set", 'portfolio.assets.WETH.alert_above="off"'),)
    assert form_arguments("edit", {"asset": ["WETH"], "alert_above": ["off"], "alert_below": [""]}) == alert
    assert form_arguments("edit", {"asset": ["WETH"]}) == ()
    target = {"alert-target": ["phone"], "url_env": ["PHONE"], "event": ["error", "halt"]}
    variable = ("set", 'alerts.targets.phone.url_env="PHONE"')
    assert form_arguments("edit", target) == (variable, ("set", 'alerts.targets.phone.events="error, halt"'))
    del target["event"]
    assert form_arguments("edit", target) == (variable, ("set", 'alerts.targets.phone.events="all"'))
    for typed in ("40", "40%", " 40 % "):
        assert form_arguments("edit", {"target:WETH": [typed]}) == (("target", "WETH=40%"),), "its field shows the sign"
    bare = {"set:lp.targets.0.share": ["40"], "was:lp.targets.0.share": ["20%"]}
    assert form_arguments("edit", bare) == (("set", 'lp.targets.0.share="40"'),), "refused later, since a share needs its unit"
    assert form_arguments("edit", {"set:alerts.targets.phone": ["off"]}) == (("set", 'alerts.targets.phone="off"'),)


@pytest.mark.parametrize("typed", ["json://canary.example/hook", f"canary{'a' * 58}", "", "canary canary"])
def test_address_in_place_of_a_variable__is_repeated_nowhere(site: Site, config: Path, typed: str) -> None:
    cookie = site.enter()
    before = queued(config)
    form = {"csrf": site.token(cookie), "alert-target": "phone", "url_env": typed}
    _, headers, _ = site.post("/controls/edit", form, cookie)
    text = site.ask(headers["location"], Cookie=cookie)[2].decode()
    assert "not the name of an environment variable" in text
    assert "canary" not in text
    assert queued(config) == before


@pytest.mark.parametrize(("count", "is_backtested"), [(1, False), (2, True)], ids=["alerts alone", "a trigger too"])
def test_edit_of_alert_targets__needs_no_backtest(count: int, is_backtested: bool) -> None:
    arguments = (("set", 'alerts.targets.phone="off"'), ("set", "policy.cooldown=9h"))[:count]
    assert PlanReview("edit", arguments).trades_differently is is_backtested


class FakeAlertProcess(AppProcess):
    """A process whose test of an alert target has this result, and never begins."""

    def __init__(self, result: dict[str, Any] | Refused) -> None:
        super().__init__()
        self.result = result
        self.calls: list[tuple[object, ...]] = []
        self.stop_count = 0

    def stop(self) -> None:
        """Count the end of the process."""
        self.stop_count += 1

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return or raise the result."""
        self.calls.append((function, *arguments))
        if isinstance(self.result, Refused):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ({"targets": [{"why": ""}]}, "Test delivered at "),
        ({"targets": [{"why": "not accepted"}]}, ": not accepted."),
        (Refused(MARKUP), "Test not sent: "),
    ],
    ids=["delivered", "not accepted", "error"],
)
def test_test_of_a_target__is_sent_once_and_its_result_shown(
    site: Site, config: Path, monkeypatch: pytest.MonkeyPatch, result: dict[str, Any] | Refused, says: str
) -> None:
    process = FakeAlertProcess(result)
    monkeypatch.setattr(web_controls, "AppProcess", lambda *_: process)
    with Site(config.parent / f"{says[:8].strip(': ')}.users", config=str(config)) as tested:
        tested.board.documents["alerts"]["targets"] = [TARGET]
        cookie = tested.enter()
        form = {"csrf": tested.token(cookie), "target": "phone"}
        assert tested.post("/alerts/test", form, cookie)[1]["location"] == "/alerts"
        until(lambda: says in unescape(tested.ask("/alerts", Cookie=cookie)[2].decode()))
        assert MARKUP not in tested.ask("/alerts", Cookie=cookie)[2].decode()
        assert process.calls == [(app_modules.alert_channels.send_test_alerts, str(config), "phone")]
        assert process.stop_count == 1, "it has the secrets of the config"
        assert last_event(tested) == ("control", "ann", "alerts test phone")
        assert tested.post("/alerts/test", {**form, "target": "nobody"}, cookie)[0] == 404


@pytest.mark.parametrize("user", [READ_ONLY, None], ids=["read-only", "stranger"])
def test_test_of_a_target__needs_a_user_who_may_control(site: Site, monkeypatch: pytest.MonkeyPatch, user: int | None) -> None:
    cookie = "" if user is None else site.enter(user)
    monkeypatch.setitem(site.board.documents, "alerts", {**site.board.documents["alerts"], "targets": [TARGET]})
    page = site.ask("/alerts", Cookie=cookie)[2].decode()
    assert ("TRIMTAB_PHONE is not set" in page, "/alerts/test" in page) == (user is not None, False)
    session = site.access.find_session(cookie.partition("=")[2], touch=False)
    token = "x" if session is None else session.csrf
    status, headers, _ = site.post("/alerts/test", {"csrf": token, "target": "phone"}, cookie)
    assert (status, headers.get("location", "")[:6]) == ((403, "") if user else (303, "/login"))
    assert session is None or session.alert_tests == {}
