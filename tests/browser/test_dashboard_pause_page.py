"""The open Overview follows a pause of another process, and its end, while the reads of the chain take for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.app.records import kill_switch
from tests.browser.chromium import PHONE, patient_context
from tests.support.pages.pauses import busy_site, config  # noqa: F401
from tests.support.sites import Site


def test_pause__is_seen_on_the_open_page(chromium: Any, busy_site: Site, config: Path) -> None:  # noqa: F811
    address = f"http://localhost:{busy_site.port}"
    context = patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]})
    name, _, session = busy_site.enter().partition("=")
    context.add_cookies([{"name": name, "value": session, "url": address}])
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#connection:has-text('Live')")
    page.wait_for_selector("#outside:has-text('Traded in the next cycle.')")
    kill_switch.pause(config, "lunch")
    page.wait_for_selector("[role=alert]:has-text('Paused: nothing is sent. Reason: lunch')")
    page.wait_for_selector("#outside:has-text('Not traded: paused.')")
    assert not page.query_selector("#b-pause")
    kill_switch.resume(config, lambda _: True)
    page.wait_for_selector("#b-pause")
    assert not page.query_selector("#b-resume")
    context.close()
