"""A page whose server is gone, hangs or was restarted, on a phone and a wide screen."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent import artifacts
from agent.model import RunReport
from agent.observe.health import RunHealth, process_identity
from agent.web import access, document_cache
from agent.web.document_cache import SeenReport
from agent.web.reach import Reach
from tests.browser.chromium import AXE, PHONE, WIDE, patient_context, violations
from tests.support.dashboards import CONTROLS
from tests.support.pages.portfolios import ServedPortfolios
from tests.support.sites import Site
from tests.support.worlds import missing

STRUCK_OUT = "[...document.querySelectorAll('.state')].map(state => getComputedStyle(state).textDecorationLine)"
BUTTONS_ON = (
    "[...document.querySelectorAll('main button:not([data-range], [data-kind], [popovertargetaction])')]"
    ".filter(button => !button.disabled).map(button => button.textContent)"
)
"""The buttons that ask something of the server and are on: others filter rows, choose a range of the chart, or close a sheet."""
TABS = 40
HUNG_S = 9


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A dashboard that says that its run is healthy."""
    now_s = int(time.time())
    with Site(tmp_path / "trimtab.db.users") as site:
        report = RunReport("a", process_identity(), True, 600, now_s, now_s, cycles=1, last_cycle_s=now_s, last_good_cycle_at_s=now_s)
        site.board._seen_report = SeenReport(report, time.monotonic())
        yield site


def live_page(chromium: Any, site: Site, size: tuple[int, int] = WIDE, path: str = "/", *, only_tabs: bool = False) -> Any:
    """A page of a user who may control, once its live updates arrive."""
    address = f"http://localhost:{site.port}"
    context = patient_context(chromium, viewport={"width": size[0], "height": size[1]}, bypass_csp=True, base_url=address)
    if only_tabs:
        context.add_init_script("delete window.SharedWorker")
    context.add_cookies([{"name": "trimtab-1", "value": site.enter().partition("=")[2], "url": address}])
    page = context.new_page()
    page.goto(path)
    page.wait_for_selector("#connection:has-text('Live')")
    return page


@pytest.mark.slow
@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_page__of_a_vanished_server_says_so_and_takes_nothing(chromium: Any, site: Site, size: tuple[int, int], tmp_path: Path) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    queued_pause = {**CONTROLS["controls"][0], "kind": "pause", "state": "queued"}
    site.board.documents["controls"] = {**CONTROLS, "waiting": None, "controls": [queued_pause]}
    page = live_page(chromium, site, size)
    assert page.is_visible(".state:has-text('Under way: pause')")
    assert "running, healthy" in page.inner_text("p.state:has-text('Run:')")
    assert page.is_hidden("#gone")
    assert set(page.evaluate(STRUCK_OUT)) == {"none"}
    assert "Rebalance now" in page.evaluate(BUTTONS_ON)
    site.__exit__()

    page.wait_for_selector("#gone:has-text('does not respond')")
    assert page.evaluate("document.querySelector('#main').firstElementChild.id") == "gone"
    assert set(page.evaluate(STRUCK_OUT)) == {"line-through"}
    assert page.evaluate(BUTTONS_ON) == []
    page.evaluate("scrollTo({ top: 10_000, behavior: 'instant' })")
    assert page.locator("#gone").bounding_box()["y"] >= 0, "it stays in sight"
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    reached = []
    for _ in range(TABS):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert not {"b-rebalance", "b-pause", "b-stop"} & set(reached)
    assert "m/history" in reached

    with Site(tmp_path / "restarted.users", port=site.port):
        page.wait_for_selector("#gone:has-text('was restarted')")
        assert page.evaluate(BUTTONS_ON) == []
        assert violations(page) == []
        page.focus("#gone a")
        page.keyboard.press("Enter")
        page.wait_for_url("**/login")
        assert page.inner_text("#why") == access.RESTARTED_TEXT
    page.context.close()


@pytest.mark.slow
def test_page__of_a_server_that_hangs_says_so_until_it_answers(chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "web"
    shutil.copytree(artifacts.WEB_FOLDER, folder)
    stream = folder / "static" / "stream.js"
    stream.write_text(stream.read_text().replace("SILENCE_MS = 40000", "SILENCE_MS = 1000"))
    monkeypatch.setattr(artifacts, "WEB_FOLDER", folder)
    monkeypatch.setattr(document_cache, "PING_S", 0.2)
    with Site(tmp_path / "trimtab.db.users") as site:
        page = live_page(chromium, site)
        page.wait_for_timeout(2_000)
        assert page.inner_text("#connection").startswith("Live"), "it hears that the server is alive"
        site.loop.call_soon_threadsafe(time.sleep, HUNG_S)
        page.wait_for_selector("#gone:has-text('does not respond')")
        page.wait_for_selector("#gone", state="hidden")
        assert page.inner_text("#connection").startswith("Live")
        assert "Rebalance now" in page.evaluate(BUTTONS_ON)
        page.context.close()


def test_page__of_an_ended_session_says_why(chromium: Any, site: Site) -> None:
    site.board.documents["pause"] = {"paused": True, "pause_reason": "lunch", "pause_hard": False, "pause_signed": []}
    page = live_page(chromium, site, path="/alerts")
    cookie = next(cookie["value"] for cookie in page.context.cookies() if cookie["name"] == "trimtab-1")
    site.access.end_session(cookie)
    site.loop.call_soon_threadsafe(site.board.announce_change)
    page.wait_for_selector("#gone:has-text('Your session has ended')")
    assert access.SESSION_ENDED_TEXT in page.inner_text("#gone")
    paused = page.locator("p:has-text('Paused: nothing is sent. Reason: lunch')")
    assert paused.evaluate("line => getComputedStyle(line).textDecorationLine") == "line-through"
    page.click("#gone a")
    page.wait_for_url("**/login?to=/alerts")
    assert page.inner_text("#why") == access.SESSION_ENDED_TEXT
    page.context.close()


@pytest.mark.slow
def test_footer__says_at_once_that_the_run_has_ended(chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_cache, "PING_S", 1_000)  # no later word of the server
    with Site(tmp_path / "trimtab.db.users") as site:
        page = live_page(chromium, site)
        monkeypatch.setattr(type(site.board), "run_health", lambda _: RunHealth("stopped", ("the run was stopped",), ()))
        site.loop.call_soon_threadsafe(site.board.announce_change)
        page.wait_for_selector("p.state:has-text('the run was stopped')")
        page.wait_for_selector("#connection:has-text('no run goes on')", timeout=5_000)
        page.context.close()


@pytest.mark.slow
def test_page__of_a_restarted_paper_server_says_how_to_open_it(chromium: Any, tmp_path: Path) -> None:
    with Site(tmp_path / "a.users", Reach(port=1, on_paper=True)) as site:
        page = live_page(chromium, site)
    with Site(tmp_path / "b.users", Reach(port=1, on_paper=True), port=site.port):
        page.wait_for_selector(f"#gone:has-text('{access.PAPER_RESTARTED_TEXT}')")
        assert page.inner_text("#gone a") == "How to open it again", "there is no login"
        page.context.close()


@pytest.mark.slow
def test_list__of_a_server_that_is_gone_says_so_until_it_answers(chromium: Any, tmp_path: Path) -> None:
    with ServedPortfolios(tmp_path, ("a", "b", "gone"), users=0) as shelf:
        page = patient_context(chromium, bypass_csp=True).new_page()
        page.goto(f"http://localhost:{shelf.port}/")
        page.route("**/?seen=*", lambda route: route.abort())
        page.wait_for_selector("#gone:has-text('does not respond')")
        assert page.evaluate(STRUCK_OUT.replace(".state", ".pill")) == ["line-through"] * 3
        assert violations(page) == []
        page.unroute("**/?seen=*")
        page.wait_for_selector("#gone", state="hidden")
        page.context.close()


@pytest.mark.slow
def test_stream__refused_for_their_number_leaves_the_buttons_on(chromium: Any, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    page = live_page(chromium, site, only_tabs=True)
    monkeypatch.setattr("agent.web.app.MAX_USER_STREAMS", 0)
    page.reload()
    page.wait_for_selector("#connection:has-text('No live updates now')")
    page.wait_for_timeout(5_000)
    assert page.is_hidden("#gone")
    assert "Rebalance now" in page.evaluate(BUTTONS_ON)
    page.context.close()
