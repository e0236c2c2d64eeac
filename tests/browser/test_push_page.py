"""Alerts on this device, in Chromium: what the page says and sends, and what the service worker shows and opens."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent import wiring
from agent.config.load import load_config
from agent.model import AlertDevice, ControlKind
from agent.observe.push import PushSender
from tests.browser.chromium import AXE, PHONE, patient_context, violations
from tests.support import agents
from tests.support.sites import Site
from tests.support.worlds import missing

pytestmark = pytest.mark.slow
KEY = PushSender.from_url(f"webpush://me:{'5eed' * 16}@example.org", "PUSH").public_key
ENDPOINT = "https://web.push.apple.com/secret"
SUBSCRIBED = f"""
const subscription = {{ endpoint: {json.dumps(ENDPOINT)}, toJSON() {{
  return {{ endpoint: this.endpoint, keys: {{ p256dh: "{KEY}", auth: "{"s" * 22}" }} }};
}} }};
PushManager.prototype.subscribe = async function ({{ userVisibleOnly, applicationServerKey }}) {{
  if (!userVisibleOnly || applicationServerKey !== "{KEY}") throw new Error("another key");
  sessionStorage.subscribed = "yes";
  return subscription;
}};
PushManager.prototype.getSubscription = async () => sessionStorage.subscribed ? subscription : null;
"""
"""A browser that has a push service: Chromium has none in a context of a test, where subscribing fails."""
OTHER_KEY = """
const { subscribe } = PushManager.prototype;
PushManager.prototype.subscribe = async function (options) {
  if (!window.ended) throw new DOMException("", "InvalidStateError");
  return subscribe.call(this, options);
};
PushManager.prototype.getSubscription = async () => ({ endpoint: "https://other", unsubscribe: async () => { window.ended = true; } });
document.dispatchEvent(new Event("htmx:afterSettle"));
"""
"""Afterwards the browser has the subscription of another portfolio, with a key of its own."""
CLICKED = """async address => {
  const opened = [];
  self.clients.openWindow = async url => opened.push(url);  // permitted after a click of a person alone
  for (const data of ["/p/main/alerts", "https://evil.example/alerts", "//evil.example/alerts"]) {
    await self.registration.showNotification("any", { data });
    for (const notification of await self.registration.getNotifications()) {
      if (notification.data === data) self.dispatchEvent(new NotificationEvent("notificationclick", { notification }));
    }
  }
  return [opened, (await self.registration.getNotifications()).length];
}"""


def expect_words(page: Any, words: str) -> None:
    page.wait_for_selector(f"#device output:has-text({json.dumps(words)})")


def test_device__is_turned_on_and_off_and_alerts_open_this_page(chromium: Any, tmp_path: Path) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    config = agents.config(tmp_path)
    with wiring.open_store_offline(load_config(config)) as (store, _), Site(tmp_path / "mine.db.users", config=str(config)) as site:
        documents = site.board.documents
        address = f"http://localhost:{site.port}"
        documents["controls"] = {"controls": [], "served": True, "waiting": None}
        documents["devices"] = {"key": KEY, "devices": []}
        name, _, session = site.enter().partition("=")
        context = patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]}, bypass_csp=True)
        context.add_cookies([{"name": name, "value": session, "url": address}])
        context.grant_permissions(["notifications"], origin=address)
        page = context.new_page()
        page.goto(f"{address}/alerts")
        expect_words(page, "Off.")
        page.click("#device button")
        expect_words(page, "Not turned on: ")
        assert not store.controls.has_queued()

        browser = context.new_cdp_session(page)
        own = browser.send("Target.getTargetInfo")["targetInfo"]["browserContextId"]
        permission = {"permission": {"name": "notifications"}, "origin": address, "browserContextId": own}
        browser.send("Browser.setPermission", {**permission, "setting": "denied"})
        page.reload()
        expect_words(page, "Blocked by the browser")
        assert page.is_hidden("#device button")
        browser.send("Browser.setPermission", {**permission, "setting": "granted"})

        page.add_init_script(SUBSCRIBED)
        page.reload()
        expect_words(page, "Off.")
        page.evaluate(OTHER_KEY)
        expect_words(page, "Off.")
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.click("#device button:has-text('Turn on')")
        expect_words(page, "Not turned on: another key")
        assert not page.evaluate("window.ended"), "the alerts of the other portfolio go on"
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("#device button:has-text('Turn on')")
        page.wait_for_url("**/controls")
        queued = store.controls.newest(1)[0].control
        assert (queued.kind, queued.asked_by) == (ControlKind.DEVICE, "ann")
        assert dict(queued.arguments) == {"endpoint": ENDPOINT, "key": KEY, "auth": "s" * 22, "page": "/alerts"}
        device = AlertDevice(ENDPOINT, KEY, "s" * 22, "/alerts", "ann", 1)
        documents["devices"] = {
            "key": KEY,
            "devices": [{"id": device.id, "service": device.service_host, "user": "ann", "added": "2026-01-01"}],
        }
        page.goto(f"{address}/alerts")
        expect_words(page, "On.")
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        version = page.get_attribute("#shown", "data-version")
        site.loop.call_soon_threadsafe(site.board.announce_change)  # a live update keeps the state
        page.wait_for_selector(f"#shown:not([data-version='{version}']) #device button:has-text('Turn off')")
        page.click("#device button")
        page.wait_for_url("**/controls")
        assert store.controls.newest(1)[0].control.arguments == (("remove", device.id),)
        page.goto(f"{address}/alerts")
        page.click("button:has-text('Remove')")
        page.wait_for_url("**/controls")
        assert store.controls.newest(1)[0].control.arguments == (("remove", device.id),)

        workers: list[Any] = []
        browser.on("ServiceWorker.workerRegistrationUpdated", lambda event: workers.extend(event["registrations"]))
        browser.send("ServiceWorker.enable")
        page.evaluate("navigator.serviceWorker.ready.then(() => '')")
        message = json.dumps({"title": "trimtab: halted", "text": "<b>prices are stale", "page": "/alerts"})
        sent = {"origin": address, "registrationId": workers[0]["registrationId"], "data": message}
        browser.send("ServiceWorker.deliverPushMessage", sent)
        text = (
            "navigator.serviceWorker.ready.then(one => one.getNotifications()).then(all => all.map(one => [one.title, one.body, one.data]))"
        )
        while not (notes := page.evaluate(text)):
            page.wait_for_timeout(50)
        assert notes == [["trimtab: halted", "<b>prices are stale", "/alerts"]]
        opened, remaining = context.service_workers[0].evaluate(CLICKED)
        assert opened == [f"{address}/p/main/alerts", address, address]
        assert remaining == 1, "a clicked one is closed"
        context.close()
