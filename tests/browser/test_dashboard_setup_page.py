"""The guided set-up and the list of portfolios in Chromium: by keyboard, at phone width, without scripts, without a violation."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.config.load import load_config
from agent.web import setup
from tests.browser.chromium import AXE, PATIENCE_MS, PHONE, WIDE, patient_context
from tests.cli.conftest import served  # noqa: F401  # a fixture
from tests.cli.tools import blocks, first_document, start
from tests.support.commands.init import WALLET
from tests.support.dashboards import InProcessAppProcess
from tests.support.pages.portfolios import ServedPortfolios
from tests.support.pages.setup_keys import require_cards, require_fine, tab_to, type_into
from tests.support.pages.setups import ANSWERS, SetupBrowser
from tests.support.worlds import missing

SIZE = {"width": PHONE[0], "height": PHONE[1]}


@pytest.mark.slow
@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_config__is_corrected_and_written_by_keyboard(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    monkeypatch.setattr(setup, "AppProcess", InProcessAppProcess)
    with SetupBrowser(tmp_path / "trimtab.toml") as desk:
        viewport = {"width": size[0], "height": size[1]}
        plain = patient_context(chromium, viewport=viewport, java_script_enabled=False)
        page = plain.new_page()
        page.goto(f"http://localhost:{desk.port}{desk.opening}")
        context = patient_context(chromium, viewport=viewport, bypass_csp=True, color_scheme="dark")
        looked = context.new_page()
        looked.goto(page.url)
        require_fine(looked)
        tab_to(page, "button")
        page.keyboard.press("Enter")
        page.wait_for_selector("#f-wallet")
        context.add_cookies(plain.cookies())

        for open_page in (looked, page):
            open_page.goto(f"http://localhost:{desk.port}/setup/wallet")
            type_into(open_page, "#f-wallet", "0x12")
            open_page.keyboard.press("Enter")
            open_page.wait_for_selector("#e-wallet")
        require_fine(looked)
        assert page.input_value("#f-wallet") == "0x12"
        assert page.locator("[aria-invalid=true]").evaluate_all("fields => fields.map(field => field.id)")[:1] == ["f-network"]
        assert page.get_attribute("#f-wallet", "aria-invalid") == "true"
        assert page.locator("#e-endpoints").count() == 1
        type_into(page, "#f-network", "ethereum")
        type_into(page, "#f-wallet", WALLET)
        type_into(page, "#f-endpoints", "RPC_A=alpha RPC_B=beta")
        page.keyboard.press("Enter")
        page.wait_for_selector("#b-own")
        looked.goto(page.url)
        require_fine(looked)
        tab_to(page, "#s-1")
        page.keyboard.type("60,5")
        page.keyboard.press("Enter")
        page.wait_for_selector("#e-basket")
        assert (page.input_value("#s-1"), page.get_attribute("#s-1", "aria-invalid")) == ("60,5", "true")
        tab_to(page, "[name=basket]")
        page.keyboard.press("ArrowUp")  # from own weights, which are chosen, to the basket above
        tab_to(page, "button")
        page.keyboard.press("Enter")
        page.wait_for_selector("#f-cash")
        for field, wrong in (("cash", "-5"), ("ceiling", "0"), ("alert", "me@example.com")):
            type_into(page, f"#f-{field}", wrong)
        page.keyboard.press("Enter")
        page.wait_for_selector("#e-cash")
        invalid = page.locator("[aria-invalid=true]").evaluate_all("fields => fields.map(field => [field.id, field.value])")
        assert invalid == [["f-cash", "-5"], ["f-ceiling", "0"], ["f-alert", "me@example.com"]]
        looked.goto(page.url)
        require_fine(looked)
        page.fill("#f-ceiling", "")
        page.fill("#f-alert", "")
        type_into(page, "#f-cash", "1000")
        page.keyboard.press("Enter")
        page.wait_for_url("**/setup/review")
        for path in ("cash", "review"):
            looked.goto(f"http://localhost:{desk.port}/setup/{path}")
            require_fine(looked)
        assert not (tmp_path / "trimtab.toml").exists()
        tab_to(page, "button")
        page.keyboard.press("Enter")
        page.wait_for_url("**/setup/done")
        assert (tmp_path / "trimtab.toml").exists()
        assert "trimtab doctor" in page.inner_text("ol")
        looked.goto(page.url)
        require_fine(looked)
        plain.close()
        context.close()


@pytest.mark.slow
def test_set_up__has_no_violation_or_overflow_on_a_phone(chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    monkeypatch.setattr(setup, "AppProcess", InProcessAppProcess)
    with SetupBrowser(tmp_path / "trimtab.toml") as desk:
        context = patient_context(chromium, viewport=SIZE, bypass_csp=True)
        page = context.new_page()
        home = f"http://localhost:{desk.port}"
        page.goto(f"{home}/login")
        assert "Open the last address that trimtab serve --setup has printed" in page.inner_text("[role=alert]")
        require_fine(page)
        page.goto(home + desk.opening)
        require_fine(page)
        desk.enter()
        name, _, value = desk.cookie.partition("=")
        context.add_cookies([{"name": name, "value": value, "url": home}])
        for number, (path, fields) in enumerate([*ANSWERS.items(), ("/setup/review", {}), ("/setup/done", None)]):
            page.emulate_media(color_scheme=("dark", "light")[number % 2])
            page.goto(home + path)
            assert page.url == home + path
            require_fine(page)
            heights = page.evaluate("[...document.querySelectorAll('nav li > *')].map(step => step.offsetHeight)")
            assert len(set(heights)) <= 1, "a step that is not open yet stands like the others"
            if fields is not None:
                assert desk.post(path, fields)[0] == 303
        context.close()


@pytest.mark.slow
@pytest.mark.parametrize("size", [PHONE, (1080, 900), WIDE], ids=["390", "1080", "1280"])
def test_baskets__are_cards_that_unfold_by_keyboard(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    monkeypatch.setattr(setup, "AppProcess", InProcessAppProcess)
    with SetupBrowser(tmp_path / "trimtab.toml") as desk:
        desk.enter()
        desk.post("/setup/wallet", ANSWERS["/setup/wallet"])
        home = f"http://localhost:{desk.port}"
        context = patient_context(chromium, viewport={"width": size[0], "height": size[1]}, bypass_csp=True)
        context.add_cookies([{"name": "trimtab-1", "value": desk.cookie.partition("=")[2], "url": home}])
        page = context.new_page()
        page.goto(f"{home}/setup/basket")
        require_cards(page, "this network")
        context.close()


@pytest.mark.slow
@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_costs__are_rows_with_one_figure_each(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    monkeypatch.setattr(setup, "AppProcess", InProcessAppProcess)
    with SetupBrowser(tmp_path / "trimtab.toml") as desk:
        desk.enter()
        for path, fields in ANSWERS.items():
            desk.post(path, fields)
        home = f"http://localhost:{desk.port}"
        context = patient_context(chromium, viewport={"width": size[0], "height": size[1]}, bypass_csp=True)
        context.add_cookies([{"name": "trimtab-1", "value": desk.cookie.partition("=")[2], "url": home}])
        page = context.new_page()
        page.goto(f"{home}/setup/review")
        assert page.locator("[role=note]").inner_text().startswith("With 1,000 USDC: not worth it here")
        assert page.locator("main tr:visible").count() == 6
        tab_to(page, "main summary")
        page.keyboard.press("Enter")
        assert page.locator("main tr:visible").count() > 15, "unfolded"
        for row in page.locator("main tr:visible").all():
            assert row.evaluate("row => new Set([...row.cells].map(cell => cell.getBoundingClientRect().top)).size") == 1
            figure_text = row.locator("td").evaluate("cell => cell.firstChild.data")
            assert len(re.findall(r"[0-9][0-9.,]*", figure_text)) <= 1, figure_text
        require_fine(page)
        context.close()


@pytest.mark.slow
def test_portfolio_list__has_no_violation_and_follows_them(chromium: Any, tmp_path: Path) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    with ServedPortfolios(tmp_path, ("a", "b", "gone"), users=1) as shelf:
        context = patient_context(chromium, viewport=SIZE, bypass_csp=True)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.goto(f"http://localhost:{shelf.port}/")
        require_fine(page)
        opened = shelf.parts[1].opened_parts
        assert opened is not None
        tab_to(page, "#to-2")
        opened.cache.documents["pnl"]["all"]["value"] = "7.5"
        shelf.loop.call_soon_threadsafe(opened.cache.announce_change)
        page.wait_for_selector("data:has-text('7.50')")
        assert page.locator("#to-2:focus").count() == 1
        page.keyboard.press("Enter")
        page.wait_for_url("**/p/b/")
        page.click("text=All portfolios")
        page.wait_for_selector("#to-1")
        context.close()
        assert complaints == []


@pytest.mark.slow
@pytest.mark.timeout(900)  # its waits have PATIENCE_MS each: on a busy machine, where processes take turns, they outlast the usual limit
def test_a_paper_portfolio_is_begun_and_steered_by_keyboard(chromium: Any, served: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:  # noqa: F811
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    source, about = served
    process = start("serve", "--setup", "--port", "0", "--json", "--config", str(tmp_path / "mine.toml"))
    try:
        with blocks(about["url"]):
            address = first_document(process)["url"]
            context = patient_context(chromium, viewport=SIZE, bypass_csp=True)
            page = context.new_page()

            def press(selector: str, next_selector: str) -> None:
                tab_to(page, selector)
                page.keyboard.press("Enter")
                page.wait_for_selector(next_selector)

            page.goto(address)
            assert "Practice with imaginary money" in page.inner_text("main")
            press("button", "#f-wallet")
            assert "Practice with imaginary money" in page.inner_text("main")
            type_into(page, "#f-network", str(source))
            page.keyboard.press("Enter")
            page.wait_for_selector("#b-own")
            page.focus("[name=basket][value=small]")
            page.keyboard.press("Space")
            press("main button", "#f-cash")
            type_into(page, "#f-cash", "500")
            page.keyboard.press("Enter")
            page.wait_for_url("**/setup/review")
            press("main button", "#paper")
            for size in (PHONE, WIDE):
                page.set_viewport_size({"width": size[0], "height": size[1]})
                require_fine(page)
            press("#paper", "#b-rebalance")
            page.wait_for_selector("[data-of='status.block']")  # the chain is read, by a process that begins only then
            page.wait_for_selector("#t-last")
            overview = page.inner_text("main")
            assert "On paper, with imaginary money" in overview
            assert "Bought" in overview
            for size in (PHONE, WIDE):
                page.set_viewport_size({"width": size[0], "height": size[1]})
                require_fine(page)
            press("#b-pause", "#f-reason:focus")
            page.keyboard.type("on a trip")
            page.keyboard.press("Enter")
            page.wait_for_url("**/controls")
            page.wait_for_selector("#b-resume")
            assert "Paused: nothing is sent. Reason: on a trip" in page.inner_text("main")
            page.goto(address.partition("/login")[0] + "/setup/done")
            assert "The paper run goes on." in page.inner_text("main")
            require_fine(page)
            context.close()
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_MS / 1000)
    assert process.returncode == 0
    assert not (tmp_path / "trimtab.db").exists(), "real money trusts nothing yet"


@pytest.mark.slow
@pytest.mark.timeout(900)  # as above
def test_practice_leads_from_the_first_page_to_a_paper_portfolio(chromium: Any, tmp_path: Path) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    config = tmp_path / "mine.toml"
    process = start("serve", "--setup", "--port", "0", "--json", "--config", str(config))
    try:
        address = first_document(process)["url"]
        context = patient_context(chromium, viewport=SIZE, bypass_csp=True)
        page = context.new_page()

        def press(selector: str, next_selector: str) -> None:
            """Press the button, and look at the page that follows on a phone and a wide screen."""
            page.click(selector)
            page.wait_for_selector(next_selector)
            for size in (PHONE, WIDE):
                page.set_viewport_size({"width": size[0], "height": size[1]})
                require_fine(page)

        page.goto(address)
        press("main button", "#practice")
        press("#practice", "#b-own")
        page.check("[name=basket][value=small]")
        press("main button", "#f-cash")
        page.fill("#f-cash", "500")
        press("main button", "text=Write the config")
        assert "Practice: a chain on this machine, no account, no money" in page.inner_text("main")
        press("main button", "#paper")
        assert "Real money, in a terminal" not in page.inner_text("main"), "its coins are worth nothing"
        press("#paper", "#b-rebalance")
        page.wait_for_selector("#t-last")
        overview = page.inner_text("main")
        assert "Practice: invented prices on a chain of this machine." in overview
        assert "Bought" in overview
        press("text=Move a price", "#f-token")
        assert page.locator("#f-token option").all_inner_texts() == ["WETH", "cbBTC"]
        press(
            "[name=move][value='+20%']",
            "text=WETH moved to 3,600.00 USD. The pages show it at once; the paper run acts on it at the next check",
        )
        press("text=Open its Overview", "#b-rebalance")
        page.wait_for_selector("td:has-text('3,600')")  # WETH was 3,000
        context.close()
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_MS / 1000)
    assert process.returncode == 0
    chain = load_config(config).config.chain.rpc[0].read_url()
    with pytest.raises(OSError, match="refused"):
        urlopen(chain)
