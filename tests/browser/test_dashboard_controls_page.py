"""The owner at the dashboard by keyboard, on a phone and a wide screen: log in with a one-time code, pause, confirm a plan, watch it,
edit weights, set a stop loss, export."""

from __future__ import annotations

import http.client
import os
import re
import signal
import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.config.load import load_config
from agent.store import open_store
from agent.store.files.users import open_user_file
from agent.web.reach import PublicOptions
from tests.browser.chromium import AXE, PATIENCE_MS, PHONE, WIDE, patient_context, violations
from tests.cli.conftest import desk, served  # noqa: F401  the local chain of the commands
from tests.cli.tools import Desk, first_document, start
from tests.support import agents
from tests.support.commands.controls import ended_control
from tests.support.commands.sending import nonce
from tests.support.pages.certificates import certificate  # noqa: F401
from tests.support.pages.control_keys import PASSWORD, fill, newest, push, settled_state, tab_to, unfold, wait_for
from tests.support.pages.served import dashboard
from tests.support.sites import HASH
from tests.support.worlds import missing

pytestmark = pytest.mark.slow
COUNT_CLICKS = "addEventListener('click', () => { sessionStorage.clicks = 1 + Number(sessionStorage.clicks || 0) }, true)"
"""Counts the clicks of a tab, those that Enter makes of a button too."""


def test_owner__logs_in_pauses_confirms_and_edits_weights(
    desk: Desk,  # noqa: F811
    chromium: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    import pyotp

    monkeypatch.setenv("DASHBOARD_PASSWORD", PASSWORD)
    symbols = [asset.symbol for asset in load_config(desk.config).config.portfolio.assets]
    rows = [",".join([str(1_700_006_400 + day * 86_400), *(str(100 + day % (7 + at)) for at in range(len(symbols)))]) for day in range(64)]
    desk.config.with_name("prices.csv").write_text("\n".join([",".join(["time", *symbols]), *rows]) + "\n")
    desk.config.write_text(desk.config.read_text() + '\n[data.mine]\nsource = "prices.csv"\n')
    user_document = desk.ask("user", "add", "ann", "--password-env", "DASHBOARD_PASSWORD")
    before = nonce(desk)
    run = start("run", "--send", "--offer", "--every", "1h", "--json", "--config", str(desk.config))
    assert run.stdout is not None
    first = run.stdout.readline()
    assert first.endswith("}\n"), first + run.stdout.read()
    with dashboard(desk) as address:
        context = patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]})
        page = context.new_page()
        page.add_init_script(COUNT_CLICKS)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))

        page.goto(address)
        assert page.url == f"{address}login"
        wait_for(page, "document.activeElement?.id === 'name'")  # the browser gives the first field the focus, after loading at times
        page.keyboard.type("ann")
        fill(page, "#password", PASSWORD)
        fill(page, "#code", pyotp.parse_uri(user_document["otpauth"]).now())
        page.keyboard.press("Enter")
        page.wait_for_url(address)
        page.wait_for_selector("#connection:has-text('Live')")
        page.wait_for_selector("[data-of='status.block']")

        unfold(page, "pause")
        fill(page, "#f-reason", "smoke")
        push(page, "#pause button")
        page.wait_for_url(f"{address}controls")
        wait_for(page, "document.querySelector('[data-control]')?.textContent === 'done'")
        assert desk.ask("status")["paused"] is True
        page.goto(address)
        page.wait_for_selector("#outside:has-text('Not traded: paused')")  # without a click
        page.wait_for_selector("#b-resume:not(.quiet)")
        page.wait_for_timeout(1_000)  # a resume of the second of its pause is refused: the pause may be the later one
        push(page, "#b-resume")
        wait_for(page, "document.querySelectorAll('[data-control]').length === 2")
        assert settled_state(page, desk) == "done"
        assert desk.ask("status")["paused"] is False
        assert nonce(desk) == before

        watching = context.new_page()
        watching.goto(f"{address}history")
        watching.wait_for_selector("#connection:has-text('Live')")
        watching.evaluate("window.opened = 'once'")
        assert "No transaction" in watching.inner_text("main")

        page.wait_for_selector("#b-confirm")
        push(page, "#b-confirm")
        page.wait_for_url(re.compile("/controls/review/"))
        page.wait_for_selector("button:has-text('Confirm this plan')")
        waiting = desk.ask("controls")["waiting"]
        for of, exact in (("cost.total", waiting["document"]["cost"]["total"]), ("worst_case", waiting["document"]["worst_case"])):
            assert page.get_attribute(f'[data-of="review.document.{of}"]', "value") == exact
        assert waiting["plan_hash"][:16] in page.inner_text("main")
        push(page, "main form button")
        page.wait_for_url(f"{address}controls")
        assert settled_state(page, desk) == "done"
        assert newest(desk)["requested_by"] == "ann"
        assert nonce(desk) > before
        watching.wait_for_selector("[aria-label='Rebalances'] tbody tr:has-text('swap')", timeout=PATIENCE_MS)
        assert watching.evaluate("window.opened") == "once", "the open page followed without being loaded again"
        watching.close()

        reviews = []
        for size, button, symbol, level in ((PHONE, "weights", "WBTC", "20%"), (WIDE, "weights-seen", "WETH", "900")):
            page.set_viewport_size({"width": size[0], "height": size[1]})
            targets = {holding["symbol"]: holding["target_bps"] for holding in desk.ask("status")["holdings"]}
            page.goto(address)
            page.evaluate("sessionStorage.clicks = 0")
            page.wait_for_selector('[name="target:WETH"]', state="attached")
            tab_to(page, f"#b-{button}")
            page.keyboard.press("Enter")
            for expected_text, change in (("WETH", -300), ("USDC", 300)):
                fill(page, f'[name="target:{expected_text}"]', f"{(targets[expected_text] + change) / 100:.2f}")
            assert page.inner_text("#sum") == "100.00 %"
            push(page, "#weights button")
            page.wait_for_selector("button:has-text('Write these settings')")
            assert page.query_selector_all(".moves li"), "what the whole way to the targets moves"
            assert page.query_selector_all('#d-whole [data-of^="review.document.transition.cost"]')
            if size == PHONE:  # by a process of its own, while the plan can be confirmed
                page.wait_for_selector("[data-of='backtest.over_present.mean']", timeout=PATIENCE_MS)
                assert "Out of sample, over holding:" in page.inner_text("#backtest")
                for expected_text in ("prices of [data]", "Chance of over-fitting"):
                    assert expected_text in (page.text_content("#backtest") or "")
            reviews.append(page.url)
            push(page, ".confirm form button")
            assert page.evaluate("Number(sessionStorage.clicks)") == 3
            assert settled_state(page, desk) == "done"
            after = {holding["symbol"]: holding["target_bps"] for holding in desk.ask("status")["holdings"]}
            assert (after["WETH"], after["USDC"]) == (targets["WETH"] - 300, targets["USDC"] + 300)

            page.goto(address)
            page.evaluate("sessionStorage.clicks = 0")
            page.wait_for_selector(f"#b-orders{symbol}")
            unfold(page, "orders", symbol)
            assert page.input_value("#f-asset") == symbol
            fill(page, "#f-stop_loss", level)
            page.keyboard.press("Enter")
            page.wait_for_selector("button:has-text('Write these settings')")
            assert f'+ portfolio.assets.{symbol}.stop_loss = "{level}"' in page.inner_text(".confirm")
            assert f"stop_loss of {symbol}: at " in page.inner_text(".confirm")
            reviews.append(page.url)
            push(page, ".confirm form button")
            assert page.evaluate("Number(sessionStorage.clicks)") <= 4
            assert settled_state(page, desk) == "done"
            (order,) = (order for order in desk.ask("orders")["orders"] if order["subject"] == symbol)
            page.goto(address)
            page.wait_for_selector(f"tr:has(#b-orders{symbol}) >> text=stop loss")
            assert order["kind"] == "stop_loss"

        unfold(page, "orders", "LINK")
        fill(page, "#f-stop_loss", "999999")  # above the price: it would fire at once
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]:has-text('not below the price')")
        assert not page.query_selector("input[name=plan_hash]")

        page.goto(f"{address}assets")
        page.wait_for_selector("h3:has-text('Tax export')", timeout=PATIENCE_MS)
        tab_to(page, 'a[href="/export/csv.zip"]')
        with page.expect_download() as export:
            page.keyboard.press("Enter")
        with ZipFile(export.value.path()) as files:
            assert any(b"USDC" in files.read(name) for name in files.namelist()), files.namelist()

        # No violation and no wider than a phone, in both colours.
        page.goto(f"{address}controls")
        unfold(page, "stop")
        push(page, "#stop button")
        page.wait_for_selector("#yes")
        review = page.url
        seen = patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]}, bypass_csp=True)
        looked = seen.new_page()
        for place in (f"{address}login", address, f"{address}controls", f"{address}settings", *reviews, review, f"{address}plan"):
            for scheme in ("light", "dark"):
                looked.emulate_media(color_scheme=scheme)
                looked.goto(place)
                looked.wait_for_selector("h1")
                assert violations(looked) == [], place
                assert looked.evaluate("document.documentElement.scrollWidth <= innerWidth"), place
            if place.endswith("login"):
                seen.add_cookies(context.cookies())
        seen.close()

        assert complaints == []
        push(page, ".logout button")
        page.wait_for_url(f"{address}login")
        page.goto(f"{address}controls")
        assert page.url == f"{address}login?to=/controls"
        context.close()
    kinds = [event["event"] for event in desk.ask("user", "log")["events"]]
    assert kinds[::-1] == ["user_added", "login", *["control"] * 7, "logout"]

    # A dashboard that dies: the agent does not notice, and takes what was requested before.
    process = start("serve", "--port", "0", "--json", "--config", str(desk.config))
    first_document(process)
    request_document = desk.ask("request", "resume")
    process.kill()
    process.communicate()
    assert ended_control(desk, request_document["id"])["state"] == "done"
    assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    _, output = run.communicate(timeout=60)
    assert run.returncode == 0, output
    assert "waits for a confirmation" in output, output


def test_a_paper_run_is_stopped_from_its_card(desk: Desk, chromium: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    import pyotp

    monkeypatch.setenv("DASHBOARD_PASSWORD", PASSWORD)
    user_document = desk.ask("user", "add", "ann", "--password-env", "DASHBOARD_PASSWORD")
    run = start("paper", "--value", "5000", "--every", "1h", "--config", str(desk.config))
    server = start("serve", "--port", "0", "--json", "--config", str(desk.config.parent))
    try:
        assert run.stdout is not None
        run.stdout.readline()
        address = first_document(server)["url"]
        context = patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]}, bypass_csp=True)
        page = context.new_page()
        page.goto(f"{address}p/trimtab/login")
        for selector, text in (("#name", "ann"), ("#password", PASSWORD), ("#code", pyotp.parse_uri(user_document["otpauth"]).now())):
            page.fill(selector, text)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}p/trimtab/")
        page.goto(address)
        page.wait_for_selector("article:has-text('on paper')")
        assert violations(page) == []
        push(page, "form:has([name=paper]) button")
        page.wait_for_url(f"{address}p/trimtab/controls/review/*")
        assert violations(page) == []
        page.focus("#yes")
        page.keyboard.press("Space")
        push(page, "main button.danger")
        page.wait_for_url(f"{address}p/trimtab/controls")
        page.wait_for_selector("section:has-text('Requested of the paper run') >> text=the paper run ends")
        page.goto(address)
        page.wait_for_selector("article:has-text('on paper') >> text=No paper run goes on")
        context.close()
        _, output = run.communicate(timeout=60)
        assert run.returncode == 0, output
        assert "Stopped by ann (dashboard)" in output, output
    finally:
        for process in (run, server):
            process.terminate()
            process.communicate(timeout=60)
    assert desk.ask("controls")["controls"] == []


def test_beyond_this_machine_a_login_by_tls(tmp_path: Path, certificate: PublicOptions) -> None:  # noqa: F811
    config = agents.config(tmp_path)
    loaded = load_config(config)
    open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native).close()
    options = ("serve", "--host", "0.0.0.0", "--port", "0", "--json", "--config", str(config))
    tls = ("--tls-cert", str(certificate.tls_cert), "--tls-key", str(certificate.tls_key), "--name", "localhost")
    for tls_options in ((), tls):  # without TLS, then without users
        refused = start(*options, *tls_options)
        output, _ = refused.communicate(timeout=60)
        assert refused.returncode == 2, output
        assert '"--host' in output, output
    open_user_file(tmp_path / "mine.db.users").add("ann", HASH, "A" * 32, False, 1)
    process = start(*options, *tls)
    try:
        address = first_document(process)["url"]
        assert re.fullmatch(r"https://localhost:[0-9]+/", address)
        context = ssl.create_default_context(cafile=str(certificate.tls_cert))
        for host, code in (("localhost", 303), ("evil.example", 421), ("127.0.0.1", 421)):
            link = http.client.HTTPSConnection("localhost", int(address.split(":")[2][:-1]), context=context, timeout=10)
            link.request("GET", "/", headers={"Host": host})
            assert link.getresponse().status == code
            link.close()
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert process.returncode == 0
