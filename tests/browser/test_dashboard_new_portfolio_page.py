"""A further portfolio from the page in Chromium: made and copied by keyboard, on a phone and a wide screen; and a stop from its card."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.config.load import load_config
from agent.web import access, new_portfolios
from tests.browser.chromium import AXE, PHONE, WIDE, patient_context
from tests.support.dashboards import InProcessAppProcess
from tests.support.pages.control_keys import wait_for
from tests.support.pages.folders import NEW, OWN_WALLET, ServedFolder
from tests.support.pages.setup_keys import require_cards, require_fine, tab_to, type_into
from tests.support.worlds import missing


@pytest.mark.slow
@pytest.mark.parametrize("size", [PHONE, (1080, 900), WIDE], ids=["390", "1080", "1280"])
def test_new_portfolio_baskets__are_cards_of_the_network(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    for module in (access, new_portfolios):
        monkeypatch.setattr(module, "AppProcess", InProcessAppProcess)
    with ServedFolder(tmp_path) as folder:
        home = f"http://localhost:{folder.port}"
        context = patient_context(chromium, viewport={"width": size[0], "height": size[1]}, bypass_csp=True)
        name, _, value = folder.enter(0).partition("=")
        context.add_cookies([{"name": name, "value": value, "url": home}])
        page = context.new_page()
        page.goto(f"{home}{NEW}")
        require_cards(page, "ethereum")
        page.select_option("#f-network", "base")
        page.fill("#f-cash", "500")
        page.check("#b-2")
        assert "77,520 USDC on ethereum" in page.locator(".basket").first.inner_text()
        page.click("#check")
        page.wait_for_selector("#e-name")
        assert "389 USDC on base" in page.locator(".basket").first.inner_text()
        assert (page.input_value("#f-network"), page.input_value("#f-cash")) == ("base", "500"), "what was typed is kept"
        assert page.is_checked("#b-2")
        assert page.locator("[aria-invalid=true]").evaluate_all("fields => fields.map(field => field.id)") == ["f-name"]
        context.close()


@pytest.mark.slow
@pytest.mark.parametrize("size", [PHONE, WIDE])
def test_a_portfolio_is_made_copied_and_stopped_by_keyboard(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    for module in (access, new_portfolios):
        monkeypatch.setattr(module, "AppProcess", InProcessAppProcess)
    with ServedFolder(tmp_path) as folder:
        home = f"http://localhost:{folder.port}"
        viewport = {"width": size[0], "height": size[1]}
        name, _, value = folder.enter(0).partition("=")
        plain = patient_context(chromium, viewport=viewport)  # with the policy of the page, which forbids axe
        seen = patient_context(chromium, viewport=viewport, bypass_csp=True, color_scheme="dark")
        for context in (plain, seen):
            context.add_cookies([{"name": name, "value": value, "url": home}])
        page = plain.new_page()
        looked = seen.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)

        def press(selector: str, url: str) -> None:
            tab_to(page, selector)
            with page.expect_navigation():
                page.keyboard.press("Enter")
            assert page.url == home + url

        page.goto(home)
        looked.goto(home)
        require_fine(looked)
        press("#new", "/p/mine/portfolios/new?")
        type_into(page, "#f-name", "calm")
        tab_to(page, "#f-network")
        page.keyboard.type("base")
        type_into(page, "#f-wallet", OWN_WALLET)
        tab_to(page, "[name=basket]")
        page.keyboard.press("Space")
        type_into(page, "#f-cash", "500")
        press("#check", "/p/mine/portfolios/new#review")
        assert "500 USDC" in page.inner_text("#review")
        wait_for(page, "document.querySelector('#review').getBoundingClientRect().top < innerHeight")
        assert not (tmp_path / "calm.toml").exists()
        press("#write", "/p/mine/portfolios/next?name=calm#review")
        assert load_config(tmp_path / "calm.toml").config.chain.chain_id == 8453
        assert f"trimtab wallet import --keystore {tmp_path}/calm/wallet.json" in page.inner_text("main")
        looked.goto(page.url)
        require_fine(looked)

        press("header a", "/")
        assert "Not read" in page.locator("article", has_text="calm").inner_text()
        press("#copy-1", "/p/mine/portfolios/copy?")
        for open_page in (page, looked):
            open_page.goto(page.url)
            type_into(open_page, "#f-name", "calm")
            open_page.keyboard.press("Enter")
            open_page.wait_for_selector("#e-name")
        require_fine(looked)
        for open_page in (page, looked):
            type_into(open_page, "#f-name", "twin")
            open_page.keyboard.press("Enter")
            open_page.wait_for_selector("#review")
        require_fine(looked)
        press("#write", "/p/mine/portfolios/next?name=twin#review")
        assert "on paper only" in page.inner_text("main")
        assert (tmp_path / "twin.toml").exists()

        page.goto(home)
        tab_to(page, "[action='/p/mine/controls/stop'] button")
        page.keyboard.press("Enter")
        page.wait_for_url("**/p/mine/controls/review/*")
        refused = [text for text in complaints if "422" not in text]
        plain.close()
        seen.close()
        assert refused == []
