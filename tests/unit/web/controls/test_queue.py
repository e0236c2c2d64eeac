"""Controls of the dashboard under attack: who may ask, which plan is confirmed, and how often."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

import time

from agent.app.controls import queue
from agent.app.controls.queue import list_controls
from agent.config.load import load_config
from agent.errors import ConfigError, Refused, Retryable, TrimtabError
from agent.model import ControlKind, ControlOrigin, ControlSubmission, ShownPlan
from agent.observe.push import NEWEST_ALERTS_ANCHOR
from agent.ports.users import UsersPlace
from agent.store.files.locks import service_lock
from agent.store.files.secret import ensure_secret
from agent.store.files.users import open_user_file
from agent.web import app_modules
from agent.web import controls as web_controls
from agent.web.controls import FIELDS_BY_KIND, MAX_REVIEWS
from agent.web.reading import AppProcess
from agent.web.sessions import MAX_REVIEW_AGE_S
from agent.wiring import open_store_offline
from agent.wiring.transactor import wallet_locks
from tests.support.dashboards import (
    CONTROLS,
    DEVICES,
    HOSTILE,
    MARKUP,
    PATIENCE_S,
    TARGET,
    Served,
    until,
)
from tests.support.pages.controls import queued, store_of
from tests.support.pages.reviews import review
from tests.support.sites import READ_ONLY, Site


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
        assert "its ledger stays: Start on paper continues it" in text
        assert "Nothing is sold" in text
        assert "hx-get" not in text, "an update would clear the box"
        return answer(question, plan_hash="", **ticked)

    assert "there are no paper books yet" in unescape(answer_stop(yes="yes"))
    with open_store_offline(paper) as (store, _):
        assert "no paper run goes on" in answer_stop(yes="yes")
        with service_lock(wallet_locks(paper)):
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


@pytest.mark.parametrize(("is_served", "state"), [(False, "done"), (True, "queued")], ids=["no run", "run"])
def test_paper_resume__takes_effect_at_once_without_a_paper_run(site: Site, config: Path, is_served: bool, state: str) -> None:
    paper = replace(load_config(config), is_paper=True)
    resume = ControlSubmission(ControlKind.RESUME, (), "ann", ControlOrigin.DASHBOARD)
    with open_store_offline(paper) as (store, switch):
        switch.pause("holidays", int(time.time()) - 10)
        with service_lock(wallet_locks(paper)) if is_served else nullcontext():
            queue.submit_for_user(str(config), UsersPlace(str(site.file)), 1, resume, "192.0.2.1", on_paper=True)
        assert store.controls.newest()[0].state.value == state
        assert switch.is_paused() is (state == "queued")
    for path in config.parent.glob("mine.paper.db*"):
        path.unlink()


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
        overview = served.ask("/")[2].decode()
        settings = served.ask("/settings")[2].decode()
        alerts = served.ask("/alerts")[2].decode()
    assert "/controls" not in overview
    assert re.findall(r"<button [^>]*disabled>([^<]*)<", overview) == [
        "Rebalance now", "Pause", "Edit weights", "Invest", "Withdraw", "Stop…", "Edit weights",
    ]  # fmt: skip
    assert "this server asks for it soon, without a restart" in overview
    assert 'Edit weights</button> <small class="soft">Read-only: this dashboard has no users.</small>' in overview
    assert settings.count("Read-only: this dashboard has no users.") == settings.count("disabled>") > 1
    command = f"<code>trimtab user add NAME --config {Path('none.toml').absolute()}</code>, on this machine, adds "
    assert [command in page for page in (overview, alerts)] == [True, True], "it works in any folder"
    assert "SHA-256 of none.toml: " in settings


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


def test_an_unknown_kind_is_refused(site: Site) -> None:
    cookie = site.enter()
    assert site.post("/controls/adopt", {"csrf": site.token(cookie)}, cookie)[0] == 404


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
