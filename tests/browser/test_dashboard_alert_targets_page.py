"""Alert targets on the page Alerts, in Chromium: their form, filled in for one that exists, and by keyboard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.errors import ConfigError
from agent.web import controls as web_controls
from agent.web.app_modules import alert_channels
from agent.web.reading import AppProcess
from tests.browser.chromium import AXE, PHONE, WIDE, patient_context, violations
from tests.support.dashboards import TARGET
from tests.support.pages.setup_keys import tab_to
from tests.support.sites import Site
from tests.support.worlds import missing

FORM = """[...document.querySelector("#target form").elements]
.filter(field => field.name && field.name !== "csrf" && (field.type !== "checkbox" || field.checked))
.map(field => [field.name, field.value])"""


@pytest.fixture
def page(tmp_path: Path, chromium: Any) -> Iterator[Any]:
    """The page Alerts of a user, with one target."""
    with Site(tmp_path / "trimtab.db.users") as site:
        site.board.documents["alerts"] = {**site.board.documents["alerts"], "targets": [TARGET]}
        site.board.documents["controls"] = {"controls": [], "served": True, "waiting": None}
        cookie = site.enter()
        session = site.access.find_session(cookie.partition("=")[2], touch=False)
        assert session is not None
        session.alert_tests["phone"] = "Test not delivered at 12:00 UTC: no answer in time."
        address = f"http://localhost:{site.port}"
        with patient_context(chromium, viewport={"width": WIDE[0], "height": WIDE[1]}, base_url=address, bypass_csp=True) as context:
            context.add_cookies([{"name": "trimtab-1", "value": cookie.partition("=")[2], "url": address}])
            page = context.new_page()
            page.goto("/alerts")
            yield page


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_alert_target__is_added_and_edited_by_a_form(page: Any, size: tuple[int, int]) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    assert "no answer in time" in page.inner_text("tr:has-text('phone')")
    assert violations(page) == []
    page.click("button:has-text('Edit…')")
    page.wait_for_selector("#target:popover-open")
    fields = [["form", "target"], ["alert-target", "phone"], ["url_env", "TRIMTAB_PHONE"], ["event", "halt"], ["event", "error"]]
    assert page.evaluate(FORM) == fields
    assert page.evaluate("document.getElementById('f-alert-target').readOnly"), "another name would be another target"
    assert page.evaluate(
        "document.documentElement.scrollWidth <= innerWidth && document.querySelector('#target').scrollWidth <= innerWidth"
    )
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.click("button:has-text('Add a target')")
    page.wait_for_selector("#target:popover-open")
    assert page.evaluate(FORM) == [["form", "target"], ["alert-target", ""], ["url_env", ""]]
    page.keyboard.type("mail")
    page.keyboard.press("Tab")
    page.keyboard.type("https://secret")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('#f-url_env:invalid') !== null"), "an address is no variable"
    assert page.url.endswith("/alerts"), "nothing was sent"


class DeliveringProcess(AppProcess):
    """A process that delivers each test message, and plans nothing."""

    async def call(self, function: Any, *arguments: Any) -> Any:
        """Return the document of a test that was delivered."""
        if function is not alert_channels.send_test_alerts:
            raise ConfigError("this process only tests targets")
        return {"targets": [{"why": ""}]}


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_alert_target__is_tested_and_added_by_keyboard(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    monkeypatch.setattr(web_controls, "AppProcess", DeliveringProcess)
    with Site(tmp_path / "trimtab.db.users") as site:
        site.board.documents["alerts"] = {**site.board.documents["alerts"], "targets": [TARGET]}
        site.board.documents["controls"] = {"controls": [], "served": True, "waiting": None}
        cookie = site.enter()
        session = site.access.find_session(cookie.partition("=")[2], touch=False)
        assert session is not None
        address = f"http://localhost:{site.port}"
        view = {"width": size[0], "height": size[1]}
        with patient_context(chromium, viewport=view, base_url=address, bypass_csp=True) as context:
            context.add_cookies([{"name": "trimtab-1", "value": cookie.partition("=")[2], "url": address}])
            page = context.new_page()
            page.goto("/alerts")
            tab_to(page, "[action='/alerts/test'] button")
            page.keyboard.press("Enter")
            page.wait_for_selector("tr:has-text('phone') [role=status]:has-text('Test delivered at')")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert violations(page) == []
            tab_to(page, "button:has-text('Add a target')")
            page.keyboard.press("Enter")
            page.wait_for_selector("#target:popover-open")
            page.keyboard.type("mail")
            page.keyboard.press("Tab")
            page.keyboard.type("TRIMTAB_MAIL")
            page.keyboard.press("Enter")
            page.wait_for_url("**/controls/review/*")
            added = list(session.reviews.values())[-1].arguments
            assert added[0] == ("set", 'alerts.targets.mail.url_env="TRIMTAB_MAIL"')
