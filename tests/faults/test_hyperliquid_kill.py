"""SIGKILL around every durable write of an order to Hyperliquid, and around its post: restarted, it is filled exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.errors import Retryable
from agent.localchain import LocalChain
from agent.model import IntentState
from tests.faults.test_step_kill import World, every_run
from tests.support.agents import again, fund, purse, trusted
from tests.support.futures import EVEN
from tests.support.hyperliquid import AGENT, AGENT_ENV, venue_changes, venue_for
from tests.support.hyperliquid_server import Held, HyperliquidServer
from tests.support.worlds import one_case

MOMENTS = ["before:send 1", "after:send 1", *(f"write {number}" for number in range(4, 14))]
"""Writes before the step begins and after it ends are those of every step (test_step_kill)."""
OFTEN = {"before:send 1", "after:send 1", *(f"write {number}" for number in (8, 10, 12, 13))}
"""Around the post, and before the nonce is reserved, the order signed, filled and final; the others are slow."""
ENDS = {IntentState.FINAL, IntentState.REVERTED, IntentState.CANCELLED}


@dataclass(frozen=True)
class Layer:
    """The wallet and its store, made once, and a venue of each case."""

    world: World
    server: HyperliquidServer


@pytest.fixture
def made(anvil_session: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layer]:
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    with one_case(anvil_session), venue_for(anvil_session) as server:
        fund(anvil_session, {"WETH": 50_000, "USDC": 50_000})
        loaded = trusted(anvil_session, tmp_path / "made", venue_changes(server, {"ETH": "100%"}), EVEN)
        yield Layer(World(anvil_session, loaded, purse(anvil_session)), server)


STOP_MOMENTS = ["before:send 2", "after:send 2", *(f"write {number}" for number in range(16, 26, 3))]


@pytest.mark.parametrize("moment", every_run(STOP_MOMENTS, {"before:send 2", "after:send 2"}))
def test_a_stop_killed_at_any_moment_rests_exactly_once(made: Layer, moment: str, tmp_path: Path) -> None:
    world, server = made.world, made.server
    changes = venue_changes(server, {"ETH": "100%"}, resting_stop="2%")
    world = replace(world, loaded=trusted(world.chain, tmp_path / "stops", changes, EVEN))
    assert world.killed(moment), f"{moment} was never reached"
    for _ in range(3):
        with contextlib.suppress(Retryable):  # its fate is open until its end
            world.restarted()
        world.chain.node.mine_at(world.chain.now_s() + 1_000)
    with again(world.chain, world.loaded) as agent:
        store = agent.context.store
        assert store.journal.open_intents() == () == store.journal.unbooked()
        assert {intent.state for intent in store.journal.intents()} <= ENDS
    stops = [order for order in server.orders if order.trigger is not None]
    size = server.wallet(world.chain.wallet.address).held["ETH"].size
    assert [(order.status, order.left) for order in stops if order.status == "open"] == [("open", size)]
    cloids = [body["action"]["orders"][0]["c"] for body in server.bodies if body["action"]["type"] == "order"]
    assert len(cloids) == len(set(cloids)), "nothing is posted twice"


@pytest.mark.parametrize("moment", every_run(MOMENTS, OFTEN))
def test_an_order_killed_at_any_moment_is_filled_exactly_once(made: Layer, moment: str) -> None:
    world, server = made.world, made.server
    assert world.killed(moment), f"{moment} was never reached"
    try:
        world.restarted()
    except Retryable:  # its fate is open until its end
        world.chain.node.mine_at(world.chain.now_s() + 1_000)
        world.restarted()
    world.restarted()
    with again(world.chain, world.loaded) as agent:
        store = agent.context.store
        assert store.journal.open_intents() == () == store.journal.unbooked()
        intents = store.journal.intents()
    assert {intent.state for intent in intents} <= ENDS
    fills = [fill for intent in intents if intent.receipt is not None for fill in intent.receipt.fills]
    size = server.wallet(world.chain.wallet.address).held.get("ETH", Held()).size
    assert [fill.size_raw for fill in fills] == [size * 10**4] and size > 0
    taken = [order for order in server.orders if order.cloid]
    assert len(taken) == 1 and purse(world.chain).nonce == world.before.nonce
    cloids = [body["action"]["orders"][0]["c"] for body in server.bodies if body["action"]["type"] == "order"]
    assert len(cloids) == len(set(cloids)), "nothing is posted twice"
