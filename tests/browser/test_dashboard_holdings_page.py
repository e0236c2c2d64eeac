"""The owner at the dashboard, on a phone and a wide screen: new ledgers of strategies, who gets deposits, a position taken and forgotten;
each shown, confirmed, carried out by a run, and seen on its page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent import wiring
from agent.app.agent import Agent
from agent.app.controls.runner import ControlRunner
from agent.config.loaded import LoadedConfig
from agent.layers.strategies.store import StrategyStore
from agent.localchain import LocalChain
from agent.ports.users import UsersPlace
from agent.store.files.users import open_user_file
from agent.web.access import Access
from agent.web.reach import Reach
from agent.wiring.context import SystemClock
from tests.browser.chromium import AXE, PATIENCE_MS, PHONE, WIDE, patient_context, violations
from tests.support import lp_on_chain
from tests.support.agents import fund, reopened_agent, trusted_config, yes
from tests.support.dashboards import InProcessDocumentCache, Served
from tests.support.lp_on_chain import EVEN
from tests.support.on_chain.holdings import VALUED, paused_run
from tests.support.on_chain.lp_actions import V3
from tests.support.sites import HASH
from tests.support.worlds import missing

pytestmark = pytest.mark.slow


@contextmanager
def at_the_page(
    browser: Any, chain: LocalChain, loaded: LoadedConfig, size: tuple[int, int]
) -> Iterator[tuple[Agent, Any, Any, Callable[[str], str]]]:
    """A run that trades nothing, a page of the owner, one of a read-only user, and a function that confirms a shown change."""
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    users = loaded.path.with_name("trimtab.db.users")
    for name in ("ann", "eve"):
        open_user_file(users).add(name, HASH, "A" * 32, name == "eve", 1)
    access = Access(Reach(port=1), UsersPlace(str(users)))
    access.set_users({1: ("ann", False), 2: ("eve", True)})
    board = InProcessDocumentCache(str(loaded.path), wiring.store_file(loaded))
    with reopened_agent(chain, loaded, clock=SystemClock()) as agent, Served(access, board) as served:
        agent.context.kill_switch.pause("still", agent.context.clock.now_s())
        runner = ControlRunner(agent, transports=[chain.transport])
        address = f"http://localhost:{served.port}"
        pages = []
        for user in (1, 2):
            context = patient_context(browser, viewport={"width": size[0], "height": size[1]}, bypass_csp=True, base_url=address)
            context.add_cookies([{"name": "trimtab-1", "value": access.begin_session(user), "url": address}])
            pages.append(context.new_page())
        page = pages[0]

        def confirmed(button: str) -> str:
            page.click(button)
            page.wait_for_selector("button:has-text('Write this')")
            assert violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            text = str(page.inner_text(".confirm"))
            assert "Nothing is sent" in text
            page.click("button:has-text('Write this')")
            page.wait_for_url("**/controls")
            with closing(agent.run(send=True, confirm=yes, controls=runner)) as cycles:
                next(cycles)
            record = agent.context.store.controls.newest(1)[0]
            assert (record.state.value, record.control.asked_by) == ("done", "ann"), record
            return text

        yield agent, page, pages[1], confirmed
        for open_page in pages:
            open_page.context.close()


def test_new_ledgers_and_who_gets_deposits(chromium: Any, chain: LocalChain, tmp_path: Path) -> None:
    loaded = paused_run(chain, tmp_path).loaded
    with at_the_page(chromium, chain, loaded, PHONE) as (agent, page, reader, confirmed):
        reader.goto("/strategies")
        reader.wait_for_selector("code:has-text('trimtab strategies apply')")
        assert not reader.query_selector("main form")
        page.goto("/strategies")
        page.wait_for_selector("[role=alert]:has-text('idle will be opened')")
        assert violations(page) == []
        text = confirmed("button:has-text('Review new ledgers')")
        assert "idle will be opened" in text
        assert "Ledgers then\n" in text
        assert text.count("\nidle") == 2, "WETH and USDC"
        page.goto("/strategies")
        page.wait_for_selector("th:has-text('idle')")
        assert not page.query_selector("button:has-text('Review new ledgers')")
        assert "later ones go to idle" in confirmed("tr:has(th:has-text('idle')) button:has-text('Give it all')")
        assert agent.context.store.layer_repository(StrategyStore).ledger().transfer_strategy == "idle"
        page.goto("/strategies")
        page.wait_for_selector("tr:has(th:has-text('idle')) >> text=gets all")
        assert "later ones are shared by capital" in confirmed("button:has-text('Share them by capital')")
        assert agent.context.store.layer_repository(StrategyStore).ledger().transfer_strategy is None


def test_a_position_is_taken_and_forgotten(chromium: Any, chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = trusted_config(chain, tmp_path, VALUED, EVEN)
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
    with at_the_page(chromium, chain, loaded, WIDE) as (agent, page, reader, confirmed):
        reader.goto("/liquidity")
        reader.wait_for_selector(f"code:has-text('trimtab lp take {own.token_id}')")
        assert not reader.query_selector("main form")
        page.goto("/liquidity")
        page.wait_for_selector("button:has-text('Count it')")
        assert violations(page) == []
        text = confirmed("button:has-text('Count it')")
        assert f"{own.name} counts from now on" in text
        assert "+0.499" in text
        assert [position.name for position in agent.step_input().portfolio.positions] == [own.name]
        page.goto("/liquidity")
        page.wait_for_selector("button:has-text('Forget it')", timeout=PATIENCE_MS)
        assert not page.query_selector("button:has-text('Count it')")
        assert "no exit withdraws it" in confirmed("button:has-text('Forget it')")
        assert agent.step_input().portfolio.positions == ()
