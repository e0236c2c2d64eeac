"""The dashboard beside the agent on the local chain: each figure against the command's JSON, live in Chromium, without a violation."""

from __future__ import annotations

import os
import re
import time
import zipfile
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from agent.app.research.kept_reports import list_reports, new_report_path
from agent.app.research.report_files import write_pages
from agent.app.settings.shown import settings_document
from agent.backtest.report.page import ReportFact, ReportPage, ReportSection
from agent.figures import format_figure, reader_text
from agent.web.pages import PAGES, value_at
from tests.browser.chromium import AXE, PHONE, WIDE, patient_context, violations
from tests.cli.conftest import desk, served  # noqa: F401  the local chain of the commands
from tests.cli.tools import Desk, forked
from tests.support.pages.served import dashboard
from tests.support.worlds import missing

pytestmark = pytest.mark.skipif(
    (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"), reason="needs the extra dashboard"
)

PERIODS = ("day", "week", "month", "year", "all")


def figures(page: Any) -> list[tuple[str, str, str, str]]:
    """Path, form, exact value and text of each figure, with plain spaces before "%"."""
    script = """[...document.querySelectorAll('data[data-of]')].map(
        one => [one.dataset.of, one.dataset.form, one.value, one.textContent.replaceAll("\u00a0%", " %")])"""
    return [tuple(figure) for figure in page.evaluate(script)]


def wait_for(page: Any, condition: str) -> None:
    page.wait_for_function(condition, timeout=60_000)


@pytest.mark.slow
def test_every_figure_is_the_commands_and_follows_the_agent(desk: Desk, chromium: Any) -> None:  # noqa: F811
    from tests.support.dashboards import without_age

    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "done"
    desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "20%")
    desk.edit(("test_account = 0\n", ""))  # no key from here on
    chart = {"title": "Value", "data": [{"type": "scatter", "x": [1, 2], "y": [1, 2]}], "layout": {}}
    write_pages(
        ReportPage("Two prices", (ReportFact("Value", "2.00"),), (ReportSection("Value", (), (chart,)),)),
        new_report_path(desk.config, "backtest"),
    )
    with dashboard(desk) as address:
        context = patient_context(chromium, viewport={"width": WIDE[0], "height": WIDE[1]}, bypass_csp=True)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))

        desk.node.mine_at(int(time.time()))
        desk.node.rpc("evm_setAutomine", False)  # until all is compared: an idle local chain mines every 10 s
        page.goto(address)
        wait_for(page, "document.querySelector('[data-of=\"pnl.all.value\"]') && document.querySelector('[data-of^=\"pnl.all\"]')")
        figures_by_page = {"/": figures(page)}
        wait_for(page, "document.querySelectorAll('.chart canvas').length === 1")
        mark = desk.node.rpc("eth_blockNumber")
        for number, open_page in enumerate(PAGES):  # by turns in both colours and sizes
            if number:
                page.emulate_media(color_scheme=("light", "dark")[number % 2])
                page.set_viewport_size(dict(zip(("width", "height"), PHONE if number % 3 else WIDE, strict=True)))
                page.goto(address.rstrip("/") + open_page.path)
                wait_for(page, "document.querySelector('data[data-of]') || /The config has no \\[/.test(document.body.innerText)")
                figures_by_page[open_page.path] = figures(page)
            assert violations(page) == [], open_page.path
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.goto(f"{address}assets")
        wait_for(page, "document.querySelectorAll('.chart canvas').length === 5")
        for kind in ("csv", "rotki"):
            with page.expect_download() as begun:
                page.click(f"a[href$='/{kind}.zip']")
            assert begun.value.suggested_filename == f"trimtab-{kind}.zip"
            desk.ask("export", "--format", kind, "--out", str(desk.config.parent / kind))
            with zipfile.ZipFile(begun.value.path()) as archive:
                assert {name: archive.read(name) for name in archive.namelist()} == {
                    file.name: file.read_bytes() for file in (desk.config.parent / kind).iterdir()
                }
        page.goto(f"{address}history")
        page.click("tbody a >> nth=0")
        wait_for(page, "document.querySelector('[data-of=\"explain.outcome\"]')")
        figures_by_page["explain"] = figures(page)
        step = page.url.rpartition("/")[2]
        legs, sums = (
            {of for of, *_ in figures_by_page[path] if re.search(part, of)}
            for path, part in (("explain", "realised_out"), ("/history", "execution"))
        )
        assert legs
        assert sums

        documents = {
            "status": desk.ask("status"),
            "history": desk.ask("history", "--limit", "100"),
            "pnl": {period: desk.ask("pnl", "--period", period, "--limit", "1") for period in PERIODS},
            "lots": desk.ask("books", "lots"),
            "orders": desk.ask("orders"),
            "alerts": desk.ask("alerts"),
            "lp": desk.ask("lp"),
            "plan": desk.ask("plan"),
            "settings": settings_document(desk.config),
            "reports": list_reports(desk.config),
            "run": desk.ask("health", want=15),
            "explain": desk.ask("explain", step),
        }
        assert desk.node.rpc("eth_blockNumber") == mark
        desk.node.rpc("evm_setAutomine", True)
        compared = 0
        for path, page_figures in figures_by_page.items():
            for of, form, value, text in page_figures:
                exact = value_at(documents, of)
                assert without_age(value) == without_age("" if exact is None else exact), (path, of)
                expected_text = re.sub(r"(?<=\d)%(?!\w)", " %", reader_text(format_figure(exact, form)))  # "20 %" on pages
                assert without_age(text) == without_age(expected_text), (path, of)
                compared += 1
        assert compared > 200
        assert {of.partition(".")[0] for page_figures in figures_by_page.values() for of, *_ in page_figures} == documents.keys()

        context.close()

        # Under the real policy: live after a step of another process, and by keyboard alone.
        context = patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]})
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.goto(f"{address}history")
        page.wait_for_selector("#connection:has-text('Live')")
        before = len([of for of, *_ in figures(page) if of.endswith(".time")])
        desk.ask("run", "--once")
        page.wait_for_selector(f"[data-of='history.steps.{before}.time']")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id || location.hash") in ("main", "#main")
        assert complaints == []
        # A report: its charts are drawn, in an origin without session and network.
        page.goto(f"{address}reports")
        page.click("tbody a")
        page.wait_for_selector("html[data-drawn]")
        assert page.inner_text("h1") == "Two prices"
        assert page.url.startswith(f"{address}reports/")
        refused = "(async () => { try { await fetch('/controls'); return 'sent' } catch { return 'refused' } })()"
        hidden = "(() => { try { return document.cookie } catch (error) { return error.name } })()"
        assert [page.evaluate(script) for script in ("origin", hidden, refused)] == ["null", "SecurityError", "refused"]
        context.close()
        assert {url.split("/")[2] for url in urls} == {address.split("/")[2]}


@pytest.mark.parametrize("one_of", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_page__has_no_violation_foreign_text_or_overflow(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_of: int
) -> None:
    """Each page full of figures and of markup, the login, the controls and reviews too. Without the policy unescaped text would run.
    In every run axe looks at one page of three.
    """
    from tests.support.dashboards import CONTROLS, HOSTILE, MARKUP, golden_document
    from tests.support.pages.reviews import edit_backtest, review
    from tests.support.sites import Site

    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    with Site(tmp_path / "a.users") as site:
        documents = site.board.documents
        steps = [
            {**documents["history"]["steps"][0], "transactions": [{"kind": "swap", "status": "final", "block": 1, "note": "", "hash": ""}]}
        ]
        documents["history"] |= {"steps": [{**steps[0], "reason": MARKUP}, *documents["history"]["steps"]]}
        documents["controls"] = CONTROLS
        explained = {"explain": {**golden_document("27-explain"), "sentences": [MARKUP]}, "explorer": ""}
        monkeypatch.setattr(site.board, "read_stored", AsyncMock(return_value=explained))
        cookie = site.enter()
        preview = {"plan_hash": "ab" * 32, "reason": "", "moves": [HOSTILE], "document": golden_document("04-plan")}
        edit = {
            **preview,
            "document": {"changes": [MARKUP], "rebalance_count": 2, "warnings": [HOSTILE], "transition": golden_document("04-plan")},
        }
        reviews = review(site, cookie, "rebalance", preview), review(site, cookie, "stop", preview), review(site, cookie, "edit", edit)
        session = site.access.find_session(cookie.partition("=")[2], touch=False)
        assert session is not None
        session.reviews[reviews[-1].rpartition("/")[2]].backtest = edit_backtest()
        pages = {page.path: "data" for page in PAGES} | {"/controls": "td data", "/history/abc": "data"} | dict.fromkeys(reviews, "data")
        context = patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]}, bypass_csp=True)
        page = context.new_page()
        ran = list[str]()
        page.on("dialog", lambda dialog: (ran.append(page.url), dialog.dismiss()))
        page.on("console", lambda message: ran.append(message.text) if message.type in ("error", "warning") else None)
        targets = "[...document.querySelectorAll('a, button, summary, select, textarea, input:not([type=hidden])')]"
        targets += (
            ".filter(one => one.checkVisibility() && !one.matches('.skip')).map(one => one.type === 'checkbox' ? one.labels[0] : one)"
        )
        small = f"{targets}.filter(one => Math.min(one.getBoundingClientRect().width, one.getBoundingClientRect().height) < 44)"
        small += ".map(one => one.outerHTML)"
        in_reach = "one => { const box = one.getBoundingClientRect(), at = document.elementFromPoint(box.x + 5, box.y + box.height / 2); "
        in_reach += "return at === one || one.contains(at) }"
        for number, (path, full) in enumerate({"/login": "#code", **pages}.items()):
            page.emulate_media(color_scheme=("light", "dark")[number % 2])  # each in the colour that the test above omits
            page.goto(f"http://localhost:{site.port}{path}")
            assert page.locator(full).count(), path
            if number % one_of == 0:
                assert violations(page) == [], path
            page.emulate_media(color_scheme=("dark", "light")[number % 2])
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            assert page.evaluate("[...document.querySelectorAll('.scroll')].every(one => one.scrollWidth <= one.clientWidth)"), path
            assert page.evaluate(small) == [], path
            if path in reviews:  # why or what comes first, and its button is always in reach
                assert page.inner_text("h2 >> nth=0") in ("Why", "What moves", "What changes"), path
                for place in (0, 10_000):
                    page.evaluate(f"scrollTo({{ top: {place}, behavior: 'instant' }})")
                    assert page.locator(".go button").evaluate(in_reach), path
                assert page.locator("main > :last-child > :last-child").evaluate(in_reach), path
            for sheet in ("weights", "orders") if path == "/" else ():
                page.click(f"[popovertarget={sheet}]:not([popovertargetaction]) >> nth=-1")
                assert violations(page) == [], sheet
                page.keyboard.press("Escape")
            if path == "/login":
                name, _, value = cookie.partition("=")
                context.add_cookies([{"name": name, "value": value, "url": f"http://localhost:{site.port}"}])
        context.close()
        assert ran == []


def test_a_change_during_a_read_of_the_page_is_shown_too(chromium: Any) -> None:
    from tests.support.dashboards import Served

    page = patient_context(chromium, bypass_csp=True).new_page()
    with Served() as server:

        def change(mark: str) -> None:
            server.board.documents = {**server.board.documents, "lp": {**server.board.documents["lp"], "warnings": [mark]}}
            server.loop.call_soon_threadsafe(server.board.announce_change)

        page.goto(f"http://localhost:{server.port}/liquidity")
        page.wait_for_selector("#connection:has-text('Live')")
        page.evaluate("let told = 0; document.addEventListener('sse:changed', () => { document.body.dataset.told = ++told })")
        held_routes: list[Any] = []
        page.route("**/liquidity", lambda route: route.continue_() if held_routes else held_routes.append(route))
        change("first")
        page.wait_for_selector("body[data-told='1']")
        answer = held_routes[0].fetch()
        assert "first" in answer.text()
        change("second")
        page.wait_for_selector("body[data-told='2']")
        held_routes[0].fulfill(response=answer)
        page.wait_for_selector("main:has-text('second')")
        page.context.close()


def test_pause__takes_two_clicks_and_choices_outlive_an_update(chromium: Any, tmp_path: Path) -> None:
    from tests.support.sites import Site

    context = patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]})
    with Site(tmp_path / "trimtab.db.users") as site:
        name, _, session = site.enter().partition("=")
        context.add_cookies([{"name": name, "value": session, "url": f"http://localhost:{site.port}"}])
        page = context.new_page()
        complaints = list[str]()
        posted = list[str]()
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.route("**/controls/pause", lambda route: (posted.append(route.request.post_data), route.fulfill(status=204)))
        liquidity = site.board.documents.pop("lp")
        page.goto(f"http://localhost:{site.port}/")
        page.wait_for_selector("#connection:has-text('Live')")
        page.wait_for_selector(".chart canvas")
        assert not page.query_selector("nav a:has-text('Liquidity')")
        draw = "for (let i = 0; i < 5; i++) { const begin = performance.now(); document.querySelector('#r-All').click(); "
        draw += "await new Promise(setTimeout); times.push(performance.now() - begin) } return Math.min(...times)"
        assert page.evaluate(f"(async () => {{ const times = []; {draw} }})()") <= 100
        page.click("[data-range='1M']")
        read = page.inner_text("#readout")
        page.click("#d-decision summary")
        page.focus("nav a:has-text('History')")
        site.board.documents["status"]["decision"]["reason"] = "meanwhile"
        site.board.documents["lp"] = liquidity
        site.loop.call_soon_threadsafe(site.board.announce_change)
        page.wait_for_selector("main:has-text('meanwhile')")
        page.wait_for_selector("#d-decision[open]")
        assert page.query_selector("nav a:has-text('Liquidity')")
        assert page.query_selector("nav a:focus:has-text('History')")
        assert page.get_attribute("[data-range='1M']", "aria-pressed") == "true"
        last = site.board.documents["series"]["values"][-1]
        assert page.inner_text("#readout") == read
        assert f"value {format_figure(last, 'money')}" in read
        bar = page.locator("#menu > ul > li > :is(a, button):visible")
        assert bar.all_inner_texts() == ["Overview", "History", "Assets", "More"]
        page.focus("nav a:has-text('Assets')")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Liquidity"
        page.keyboard.press("Escape")
        page.click("button:has-text('Pause')")
        page.click("#pause button")
        assert len(posted) == 1
        assert complaints == []
        context.close()


def test_figures__are_painted_before_the_charts_are_loaded(chromium: Any) -> None:
    from tests.support.dashboards import Served, until

    page = patient_context(chromium).new_page()
    held_page = list[Any]()
    for name in ("**/uplot*.css", "**/uplot*.js"):
        page.route(name, lambda route, _: held_page.append(route))
    with Served() as server:
        page.goto(f"http://localhost:{server.port}/", wait_until="commit")
        until(lambda: page.evaluate("performance.getEntriesByType('paint').length") == 2)
        for part in (".value data", "[aria-labelledby=t-weights] tbody th", "#t-decision data"):
            assert page.locator(part).first.is_visible(), part
        held_page.pop().continue_()  # scripts wait for styles
        page.wait_for_selector("#connection:has-text('Live')")
        assert page.locator(".chart canvas").count() == 0
        until(lambda: page.evaluate("1") == len(held_page))
        held_page.pop().continue_()
        page.wait_for_selector(".chart canvas")
        page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["shared", "of a tab"])
def test_many_tabs_leave_connections_to_the_one_in_use(chromium: Any, workers: str) -> None:
    from tests.support.dashboards import Served, until

    context = patient_context(chromium, bypass_csp=True)
    if workers != "shared":  # as Chrome on Android: only hidden tabs have no stream
        context.add_init_script("delete window.SharedWorker")
    turn = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); "
    turn += "document.dispatchEvent(new Event('visibilitychange')) }"
    with Served() as server:
        pages = [context.new_page() for _ in range(7)]  # one more than the connections of a browser to a server
        for page in pages:
            page.goto(f"http://localhost:{server.port}/liquidity")
            page.wait_for_selector("#connection:has-text('Live')")
            if workers != "shared":
                page.evaluate(turn, True)
        if workers == "shared":
            assert server.board.streams.total() == 1
        documents = server.board.documents
        server.board.documents = {**documents, "lp": {**documents["lp"], "warnings": ["meanwhile"]}}
        server.loop.call_soon_threadsafe(server.board.announce_change)
        if workers == "shared":
            for page in pages:
                page.wait_for_selector("main:has-text('meanwhile')")
                page.evaluate(turn, True)
        until(lambda: server.board.streams.total() == 0)
        server.board.documents = {**documents, "lp": {**documents["lp"], "warnings": ["at last"]}}
        server.loop.call_soon_threadsafe(server.board.announce_change)
        assert "at last" not in pages[0].inner_text("main")
        pages[0].evaluate(turn, False)
        pages[0].wait_for_selector("main:has-text('at last')")
        assert "Live" in pages[0].inner_text("#connection")
        context.close()


@pytest.mark.slow
def test_page_of_an_ended_session__leads_to_the_login(chromium: Any, tmp_path: Path) -> None:
    from tests.support.sites import Site

    context = patient_context(chromium, bypass_csp=True)
    with Site(tmp_path / "trimtab.db.users") as site:
        name, _, session = site.enter().partition("=")
        context.add_cookies([{"name": name, "value": session, "url": f"http://localhost:{site.port}"}])
        page = context.new_page()
        page.goto(f"http://localhost:{site.port}/alerts")
        page.wait_for_selector("#connection:has-text('Live')")
        site.access.end_session(session)
        site.loop.call_soon_threadsafe(site.board.announce_change)
        page.click("#connection a:has-text('Log in')")
        page.wait_for_url("**/login?to=/alerts")
        context.close()


@pytest.mark.slow
def test_page_without_the_dashboard__says_how_old_its_figures_are(chromium: Any, tmp_path: Path) -> None:
    from tests.support.dashboards import until
    from tests.support.sites import Site

    context = patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]})
    script = "caches.open('figures').then(async all => Promise.all((await all.keys()).map(async one => (await all.match(one)).text())))"
    workers = "navigator.serviceWorker.getRegistrations().then(all => all.length)"
    page = context.new_page()
    with Site(tmp_path / "trimtab.db.users") as site:
        read = datetime.now(UTC) - timedelta(hours=3, minutes=20, seconds=10)
        site.board.documents["pnl"]["all"]["until"] = f"{read:%Y-%m-%dT%H:%M:%SZ}"
        address = f"http://localhost:{site.port}/"
        for is_logged_out in (True, False):
            name, _, session = site.enter().partition("=")
            context.add_cookies([{"name": name, "value": session, "url": address}])
            page.goto(address)
            page.evaluate("navigator.serviceWorker.ready.then(() => '')")
            until(lambda: page.evaluate(script) == [f"{read:%Y-%m-%dT%H:%M:%SZ}"])
            if is_logged_out:
                page.click(".logout button")
                page.wait_for_selector("#password")
                assert (page.evaluate(script), page.evaluate(workers)) == ([], 0)
    page.goto(f"{address}assets")
    inner_text = page.inner_text("main")
    assert f"of {read:%Y-%m-%d %H:%M:%S} UTC, 3 h 20 min ago" in inner_text
    assert "USDC" not in inner_text
    assert "a paper run that trimtab serve --setup began ends with that server" in inner_text
    context.close()


@pytest.mark.slow
def test_a_missing_store_ends_with_the_remedy(desk: Desk) -> None:  # noqa: F811
    desk.edit(("sqlite:///trimtab.db", "sqlite:///nowhere.db"))
    output = forked(desk, "serve", "--port", "0", "--json").ended()  # this process has Chromium's event loop
    assert output.code == 2
    assert output.error["message"].startswith("store:")
