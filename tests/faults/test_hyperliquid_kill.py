"""SIGKILL around every durable write of an order to Hyperliquid, and around its post: restarted, it is filled exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
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
        assert store.journal.open_intents() == () == store.journal.unbooked_intents()
        assert {intent.state for intent in store.journal.intents()} <= ENDS
    stops = [order for order in server.orders if order.trigger is not None]
    size = server.wallet(world.chain.wallet.address).held["ETH"].size
    assert [(order.status, order.left) for order in stops if order.status == "open"] == [("open", size)]
    cloids = [body["action"]["orders"][0]["c"] for body in server.bodies if body["action"]["type"] == "order"]
    assert len(cloids) == len(set(cloids)), "nothing is posted twice"


LIMIT_MOMENTS = ["before:send 1", "after:send 1", *(f"write {number}" for number in range(7, 15))]
END_MOMENTS = [*(f"write {number}" for number in range(2, 11)), "before:send 1", "after:send 1"]


def limit_world(made: Layer, folder: Path) -> World:
    """The world with openings that rest for an hour, and an empty book."""
    made.server.move("ETH", "0")
    limits = {"futures.order_type": "gtc", "futures.order_time": "1h", "futures.leverage_band": "10%"}
    changes = venue_changes(made.server, {"ETH": "100%"}) | limits
    return replace(made.world, loaded=trusted(made.world.chain, folder, changes, EVEN))


def require_each_fill_once(world: World, server: HyperliquidServer) -> None:
    """Require that the journal has every fill of the venue once, and that nothing was posted twice."""
    with again(world.chain, world.loaded) as agent:
        store = agent.context.store
        assert store.journal.unbooked_intents() == ()
        assert all(intent.is_resting for intent in store.journal.open_intents())
        fills = [fill.fill_id for intent in store.journal.intents() if intent.receipt for fill in intent.receipt.fills]
    mine = [str(fill["tid"]) for fill in server.fills if fill["user"] == world.chain.wallet.address.lower()]
    assert sorted(fills) == sorted(mine)
    cloids = [body["action"]["orders"][0]["c"] for body in server.bodies if body["action"]["type"] == "order"]
    assert len(cloids) == len(set(cloids)), "nothing is posted twice"


@pytest.mark.parametrize("moment", every_run(LIMIT_MOMENTS, {"before:send 1", "after:send 1", "write 12"}))
def test_a_limit_order_killed_at_any_moment_rests_exactly_once(made: Layer, moment: str, tmp_path: Path) -> None:
    world, server = limit_world(made, tmp_path / "limits"), made.server
    assert world.killed(moment), f"{moment} was never reached"
    for _ in range(3):
        with contextlib.suppress(Retryable):  # its fate is open until its end
            world.restarted()
        world.chain.node.mine_at(world.chain.now_s() + 200)
    [order] = [one for one in server.orders if one.cloid and one.status == "open"]
    server.trade_through("ETH", "1")
    world.restarted()
    assert order.status == "open"
    require_each_fill_once(world, server)


@pytest.mark.parametrize("moment", every_run(END_MOMENTS, {"write 3", "write 6", "before:send 1", "after:send 1"}))
def test_the_end_of_a_limit_order_killed_at_any_moment_opens_nothing_twice(made: Layer, moment: str, tmp_path: Path) -> None:
    world, server = limit_world(made, tmp_path / "limits"), made.server
    world.restarted()
    server.trade_through("ETH", "1")
    world.chain.node.mine_at(world.chain.now_s() + 3_601)
    assert world.killed(moment), f"{moment} was never reached"
    for _ in range(3):
        with contextlib.suppress(Retryable):
            world.restarted()
        world.chain.node.mine_at(world.chain.now_s() + 200)
    taken = [one for one in server.orders if one.cloid]
    assert [one.status for one in taken] == ["canceled", "open"], "the first ended, and the rest is opened once"
    held = server.wallet(world.chain.wallet.address).held["ETH"].size
    assert held == 1
    assert held + taken[1].left <= taken[0].size
    require_each_fill_once(world, server)


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
        assert store.journal.open_intents() == () == store.journal.unbooked_intents()
        intents = store.journal.intents()
    assert {intent.state for intent in intents} <= ENDS
    fills = [fill for intent in intents if intent.receipt is not None for fill in intent.receipt.fills]
    size = server.wallet(world.chain.wallet.address).held.get("ETH", Held()).size
    assert [fill.size_raw for fill in fills] == [size * 10**4]
    assert size > 0
    taken = [order for order in server.orders if order.cloid]
    assert len(taken) == 1
    assert purse(world.chain).nonce == world.before.nonce
    cloids = [body["action"]["orders"][0]["c"] for body in server.bodies if body["action"]["type"] == "order"]
    assert len(cloids) == len(set(cloids)), "nothing is posted twice"


TOGETHER_MOMENTS = ["before:send 1", "after:send 1", *(f"write {number}" for number in range(4, 28))]


@pytest.mark.parametrize("moment", every_run(TOGETHER_MOMENTS, {"before:send 1", "after:send 1", "write 10", "write 13", "write 16"}))
def test_orders_of_one_action_killed_at_any_moment_are_each_filled_once(made: Layer, moment: str, tmp_path: Path) -> None:
    world, server = made.world, made.server
    changes = venue_changes(server, {"ETH": "40%", "BTC": "30%", "DOGE": "30%"}, "2.5x")
    world = replace(world, loaded=trusted(world.chain, tmp_path / "together", changes, EVEN))
    world.restarted()
    for coin, sizes in (("ETH", ("10000",) * 3), ("BTC", ("10000",) * 3), ("DOGE", ("1000000",) * 3)):
        server.move(coin, "-22/100")
        server.seed(coin, sizes)
    assert world.killed(moment), f"{moment} was never reached"
    for _ in range(3):
        with contextlib.suppress(Retryable):  # its fate is open until its end
            world.restarted()
        world.chain.node.mine_at(world.chain.now_s() + 200)
        world.chain.refresh_feeds()
    require_each_fill_once(world, server)
    actions = [body["action"]["orders"] for body in server.bodies if body["action"]["type"] == "order"]
    assert 3 in [len(orders) for orders in actions], "the reductions go together"
    cloids = [order["c"] for orders in actions for order in orders]
    assert len(cloids) == len(set(cloids)), "no order is posted twice"
    state = server.state(world.chain.wallet.address.lower())["marginSummary"]
    assert Fraction(state["totalNtlPos"]) <= 3 * Fraction(state["accountValue"])
    assert all(held.size > 0 for held in server.wallet(world.chain.wallet.address).held.values()), "no position is turned"
