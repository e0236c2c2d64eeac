"""SIGKILL around every durable write of a futures order, and around its send: restarted, it is filled exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.model import IntentKind
from tests.support.agents import fund, purse, reopened_agent, trusted_config
from tests.support.futures import EVEN, futures_config_changes
from tests.support.markets.step_kills import ENDS, StepWorld, every_run
from tests.support.perps import perps_on, read_now
from tests.support.worlds import one_case

MOMENTS = ["before:send 1", "after:send 1", *(f"write {number}" for number in range(5, 15))]
"""Writes before the step begins and after it ends are those of every step (test_step_kill)."""
OFTEN = {"before:send 1", "after:send 1", "write 13"}
"""Around the send, and before the order is booked; the others are slow."""


@dataclass(frozen=True)
class Layer:
    """The wallet, its store and the venue, made once."""

    world: StepWorld
    perps: LocalPerps


@pytest.fixture(scope="module")
def layer(anvil_session: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layer]:
    with one_case(anvil_session):
        fund(anvil_session, {"WETH": 50_000, "USDC": 50_000})
        perps = perps_on(anvil_session)
        perps.deposit(anvil_session.wallet.address, 10_000 * 10**6)
        loaded = trusted_config(anvil_session, tmp_path_factory.mktemp("made"), futures_config_changes(perps, {"WETH": "100%"}), EVEN)
        yield Layer(StepWorld(anvil_session, loaded, purse(anvil_session)), perps)


@pytest.mark.parametrize("moment", every_run(MOMENTS, OFTEN))
def test_an_order_killed_at_any_moment_is_filled_exactly_once(layer: Layer, tmp_path: Path, moment: str) -> None:
    with one_case(layer.world.chain):
        world = layer.world.copied(tmp_path / "case")
        assert world.killed(moment), f"{moment} was never reached"
        world.restarted()
        world.restarted()
        with reopened_agent(world.chain, world.loaded) as agent:
            store = agent.context.store
            assert store.journal.open_intents() == () == store.journal.unbooked_intents()
            intents = store.journal.intents()
            history = store.budgets.history(world.chain.now_s())
        assert {intent.state for intent in intents} <= ENDS
        mined = [intent for intent in intents if intent.receipt is not None]
        assert [intent.kind for intent in mined] == [IntentKind.FUTURES]
        after = purse(world.chain)
        assert after.nonce - world.before.nonce == len(mined)
        gas_wei = sum(intent.receipt.gas_cost_wei for intent in mined if intent.receipt is not None)
        assert world.before.native_wei - after.native_wei == gas_wei == history.budgets.gas_24h_wei
        margin_account = read_now(layer.perps, world.chain.wallet.address)
        [fill] = mined[0].receipt.fills if mined[0].receipt is not None else ()
        assert margin_account.size_raw(fill.market) == fill.size_raw > 0
        leverage = margin.leverage(margin_account)
        assert leverage is not None
        assert leverage < 3
