"""The owner at the dashboard by keyboard, on a phone and a wide screen: price alerts from an asset's row; shares of strategies, and a
profile, from the settings."""

from __future__ import annotations

import os
import re
import signal
from importlib.util import find_spec
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent import app as api
from agent.config.load import load_config
from tests.browser.chromium import AXE, PHONE, WIDE, patient_context, violations
from tests.cli.conftest import desk, served  # noqa: F401  the local chain of the commands
from tests.cli.tools import Desk, start
from tests.support.pages.control_keys import PASSWORD, fill, push, settled_state, tab_to, unfold
from tests.support.pages.served import dashboard
from tests.support.worlds import missing

pytestmark = pytest.mark.slow
STRATEGY = """
[[strategies]]
name = "{}"
share = "{}"
floor = "0%"
allocator = "equal"
health = "off"
"""


def confirmed(page: Any, desk: Desk) -> str:  # noqa: F811
    """Confirm the shown edit; return what it changes."""
    page.wait_for_selector("button:has-text('Write these settings')")
    assert violations(page) == []
    text = str(page.inner_text(".confirm"))
    push(page, ".confirm form button")
    assert settled_state(page, desk) == "done"
    return text


def test_alerts_strategies_and_a_profile_are_set_by_keyboard(
    desk: Desk,  # noqa: F811
    chromium: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    import pyotp

    monkeypatch.setenv("DASHBOARD_PASSWORD", PASSWORD)
    profile = desk.config.with_name("mine.profile")
    api.export_profile(desk.config, profile)
    strategies = "".join(STRATEGY.format(*strategy_row) for strategy_row in (("one", "60%"), ("two", "40%")))
    desk.config.write_text(f'{desk.config.read_text()}{strategies}[split]\nrelative = "50%"\n')
    user_document = desk.ask("user", "add", "ann", "--password-env", "DASHBOARD_PASSWORD")
    run = start("run", "--send", "--yes", "--every", "1h", "--json", "--config", str(desk.config))
    assert run.stdout is not None
    first = run.stdout.readline()
    assert first.endswith("}\n"), first + run.stdout.read()
    with dashboard(desk) as address:
        context = patient_context(chromium, viewport={"width": PHONE[0], "height": PHONE[1]}, bypass_csp=True)
        page = context.new_page()
        page.goto(address)
        fill(page, "#name", "ann")
        fill(page, "#password", PASSWORD)
        fill(page, "#code", pyotp.parse_uri(user_document["otpauth"]).now())
        page.keyboard.press("Enter")
        page.wait_for_url(address)
        page.wait_for_selector("[data-of='status.block']")  # sheets are made of the figures that were read before the page was loaded

        for size, level, shares in ((PHONE, "9000", ("50%", "50%")), (WIDE, "2000", ("30%", "70%"))):
            page.set_viewport_size({"width": size[0], "height": size[1]})
            page.goto(address)
            page.wait_for_selector("#b-ordersWETH")
            unfold(page, "orders", "WETH")
            fill(page, "#f-alert_above", level)
            assert violations(page) == []
            page.keyboard.press("Enter")
            assert f'+ portfolio.assets.WETH.alert_above = "{level}"' in confirmed(page, desk)
            page.goto(address)
            stage = "armed" if level == "9000" else "fired"
            page.wait_for_selector(f"tr:has(#b-ordersWETH) >> text=/alert above {level[0]},000.00.* {stage}/")

            page.goto(f"{address}settings")
            page.wait_for_selector("#b-edit-strategies")
            assert not page.query_selector("#b-edit-liquidity"), "the config has none"
            unfold(page, "edit-strategies")
            for name, share in zip(("one", "two"), shares, strict=True):
                fill(page, f'[name="set:strategies.{name}.share"]', share)
            assert violations(page) == []
            page.keyboard.press("Enter")
            assert f'+ strategies.two.share = "{shares[1]}"' in confirmed(page, desk)
            assert tuple(f"{strategy.share / 100:g}%" for strategy in load_config(desk.config).config.strategies) == shares
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        page.goto(address)
        unfold(page, "orders", "WETH")
        fill(page, "#f-alert_above", "off")
        page.keyboard.press("Enter")
        confirmed(page, desk)
        assert desk.ask("orders")["orders"] == []

        page.goto(f"{address}settings")
        unfold(page, "profile")
        tab_to(page, "#f-profile")
        page.keyboard.insert_text(re.sub('cooldown = ".*"', 'cooldown = "5h"', profile.read_text()))
        assert violations(page) == []
        push(page, "#profile button")
        assert [line for line in confirmed(page, desk).splitlines() if line[:1] == "+"] == ['+ policy.cooldown = "5h"']
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        context.close()
    assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    _, output = run.communicate(timeout=60)
    assert run.returncode == 0, output
