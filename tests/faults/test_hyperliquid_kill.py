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
from tests.support.agents import fund, purse, reopened_agent, trusted_config
from tests.support.futures import EVEN
from tests.support.hyperliquid import AGENT, AGENT_ENV, venue_changes, venue_for
from tests.support.hyperliquid_server import HyperliquidServer, ServerPosition
from tests.support.markets.step_kills import StepWorld, every_run
from tests.support.worlds import one_case

MOMENTS = ["before:send 1", "after:send 1", *(f"write {number}" for number in range(4, 14))]
"""Writes before the step begins and after it ends are those of every step (test_step_kill)."""
OFTEN = {"before:send 1", "after:send 1", "write 12"}
"""Around the post, and before the order is filled; the others are slow."""
ENDS = {IntentState.FINAL, IntentState.REVERTED, IntentState.CANCELLED}


@dataclass(frozen=True)
class Layer:
    """The wallet and its store, made once, and a venue of each case."""

    world: StepWorld
    server: HyperliquidServer


@pytest.fixture
def layer(anvil_session: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layer]:
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    with one_case(anvil_session), venue_for(anvil_session) as server:
        fund(anvil_session, {"WETH": 50_000, "USDC": 50_000})
        loaded = trusted_config(anvil_session, tmp_path / "made", venue_changes(server, {"ETH": "100%"}), EVEN)
        yield Layer(StepWorld(anvil_session, loaded, purse(anvil_session)), server)


STOP_MOMENTS = ["before:send 2", "after:send 2", *(f"write {number}" for number in range(16, 26, 3))]


@pytest.mark.parametrize("moment", every_run(STOP_MOMENTS, {"before:send 2", "after:send 2"}))
def test_a_stop_killed_at_any_moment_rests_exactly_once(layer: Layer, moment: str, tmp_path: Path) -> None:
    world = layer.world
    server = layer.server
    changes = venue_changes(server, {"ETH": "100%"}, resting_stop="2%")
    world = replace(world, loaded=trusted_config(world.chain, tmp_path / "stops", changes, EVEN))
    assert world.killed(moment), f"{moment} was never reached"
    for _ in range(3):
        with contextlib.suppress(Retryable):  # its fate is open until its end
            world.restarted()
        world.chain.node.mine_at(world.chain.now_s() + 1_000)
    with reopened_agent(world.chain, world.loaded) as agent:
        store = agent.context.store
        assert store.journal.open_intents() == () == store.journal.unbooked_intents()
        assert {intent.state for intent in store.journal.intents()} <= ENDS
    stops = [order for order in server.orders if order.trigger is not None]
    size = server.wallet(world.chain.wallet.address).positions["ETH"].size
    assert [(order.status, order.left) for order in stops if order.status == "open"] == [("open", size)]
    cloids = [body["action"]["orders"][0]["c"] for body in server.bodies if body["action"]["type"] == "order"]
    assert len(cloids) == len(set(cloids)), "nothing is posted twice"


LIMIT_MOMENTS = ["before:send 1", "after:send 1", *(f"write {number}" for number in range(7, 15))]
END_MOMENTS = [*(f"write {number}" for number in range(2, 11)), "before:send 1", "after:send 1"]


def limit_world(layer: Layer, folder: Path) -> StepWorld:
    """The world with openings that rest for an hour, and an empty book."""
    layer.server.move("ETH", "0")
    limits = {"futures.order_type": "gtc", "futures.order_time": "1h", "futures.leverage_band": "10%"}
    changes = venue_changes(layer.server, {"ETH": "100%"}) | limits
    return replace(layer.world, loaded=trusted_config(layer.world.chain, folder, changes, EVEN))


def require_each_fill_once(world: StepWorld, server: HyperliquidServer) -> None:
    """Require that the journal has every fill of the venue once, and that nothing was posted twice."""
    with reopened_agent(world.chain, world.loaded) as agent:
        store = agent.context.store
        assert store.journal.unbooked_intents() == ()
        assert all(intent.is_resting for intent in store.journal.open_intents())
        fills = [fill.fill_id for intent in store.journal.intents() if intent.receipt for fill in intent.receipt.fills]
    mine = [str(fill["tid"]) for fill in server.fills if fill["user"] == world.chain.wallet.address.lower()]
    assert sorted(fills) == sorted(mine)
    cloids = [body["action"]["orders"][0]["c"] for body in server.bodies if body["action"]["type"] == "order"]
    assert len(cloids) == len(set(cloids)), "nothing is posted twice"


@pytest.mark.parametrize("moment", every_run(LIMIT_MOMENTS, {"before:send 1", "after:send 1", "write 12"}))
def test_a_limit_order_killed_at_any_moment_rests_exactly_once(layer: Layer, moment: str, tmp_path: Path) -> None:
    world = limit_world(layer, tmp_path / "limits")
    server = layer.server
    assert world.killed(moment), f"{moment} was never reached"
    for _ in range(3):
        with contextlib.suppress(Retryable):  # its fate is open until its end
            world.restarted()
        world.chain.node.mine_at(world.chain.now_s() + 200)
    [order] = [order for order in server.orders if order.cloid and order.status == "open"]
    server.trade_through("ETH", "1")
    world.restarted()
    assert order.status == "open"
    require_each_fill_once(world, server)


@pytest.mark.parametrize("moment", every_run(END_MOMENTS, {"write 3", "after:send 1"}))
def test_limit_order_s_end_killed_anywhere__opens_nothing_twice(layer: Layer, moment: str, tmp_path: Path) -> None:
    world = limit_world(layer, tmp_path / "limits")
    server = layer.server
    world.restarted()
    server.trade_through("ETH", "1")
    world.chain.node.mine_at(world.chain.now_s() + 3_601)
    assert world.killed(moment), f"{moment} was never reached"
    for _ in range(3):
        with contextlib.suppress(Retryable):
            world.restarted()
        world.chain.node.mine_at(world.chain.now_s() + 200)
    taken = [order for order in server.orders if order.cloid]
    assert [order_id.status for order_id in taken] == ["canceled", "open"], "the first ended, and the rest is opened once"
    size = server.wallet(world.chain.wallet.address).positions["ETH"].size
    assert size == 1
    assert size + taken[1].left <= taken[0].size
    require_each_fill_once(world, server)


@pytest.mark.parametrize("moment", every_run(MOMENTS, OFTEN))
def test_an_order_killed_at_any_moment_is_filled_exactly_once(layer: Layer, moment: str) -> None:
    world = layer.world
    server = layer.server
    assert world.killed(moment), f"{moment} was never reached"
    try:
        world.restarted()
    except Retryable:  # its fate is open until its end
        world.chain.node.mine_at(world.chain.now_s() + 1_000)
        world.restarted()
    world.restarted()
    with reopened_agent(world.chain, world.loaded) as agent:
        store = agent.context.store
        assert store.journal.open_intents() == () == store.journal.unbooked_intents()
        intents = store.journal.intents()
    assert {intent.state for intent in intents} <= ENDS
    fills = [fill for intent in intents if intent.receipt is not None for fill in intent.receipt.fills]
    size = server.wallet(world.chain.wallet.address).positions.get("ETH", ServerPosition()).size
    assert [fill.size_raw for fill in fills] == [size * 10**4]
    assert size > 0
    taken = [order for order in server.orders if order.cloid]
    assert len(taken) == 1
    assert purse(world.chain).nonce == world.before.nonce
    cloids = [body["action"]["orders"][0]["c"] for body in server.bodies if body["action"]["type"] == "order"]
    assert len(cloids) == len(set(cloids)), "nothing is posted twice"


TOGETHER_MOMENTS = ["before:send 1", "after:send 1", *(f"write {number}" for number in range(4, 28))]
"""Three intents planned (4 to 6), signed (7 to 9) and sent (10 to 12); each mined and final (13 to 18), counted in its budget (19 to
21) and booked (23 to 25); the ends of the step and of its cycle."""
TOGETHER_OFTEN = {"after:send 1", *(f"write {number}" for number in (11, 24))}
"""After the post, and with one part of the orders done: sent, booked."""


def require_orders_filled_once(world: StepWorld, server: HyperliquidServer) -> None:
    """Require of every order of the wallet at the venue one intent, with the sum of its fills, and fills of no other intent."""
    with reopened_agent(world.chain, world.loaded) as agent:
        journal = agent.context.store.journal
        assert journal.open_intents() == () == journal.unbooked_intents()
        intents = journal.intents()
    assert {intent.state for intent in intents} <= ENDS
    booked = sorted(
        (str(intent.tx_hash), fill.market, abs(fill.size_raw), fill.quote_raw, fill.fee_raw)
        for intent in intents
        if intent.receipt is not None
        for fill in intent.receipt.fills
    )
    mine = [fill for fill in server.fills if fill["user"] == world.chain.wallet.address.lower() and fill["cloid"]]
    sums: dict[tuple[str, str], list[Fraction]] = {}
    for fill in mine:
        total = sums.setdefault((fill["cloid"], fill["coin"]), [Fraction(0)] * 3)
        size = Fraction(fill["sz"])
        price = Fraction(fill["px"])
        total[0] += size * 10 ** server.coin(fill["coin"]).size_decimals
        total[1] += size * price * 10**6 * (1 if fill["side"] == "A" else -1)
        total[2] += Fraction(fill["fee"]) * 10**6
    assert booked == sorted((*order, *total) for order, total in sums.items())
    assert len(booked) == len({order.cloid for order in server.orders if order.cloid})


@pytest.mark.parametrize("moment", every_run(TOGETHER_MOMENTS, TOGETHER_OFTEN))
def test_orders_of_one_action_killed_anywhere__are_filled_once(layer: Layer, moment: str, tmp_path: Path) -> None:
    world = layer.world
    server = layer.server
    changes = venue_changes(server, {"ETH": "40%", "BTC": "30%", "DOGE": "30%"}, "2.5x")
    world = replace(world, loaded=trusted_config(world.chain, tmp_path / "together", changes, EVEN))
    user = world.chain.wallet.address.lower()
    sizes = {"ETH": Fraction("3.3333"), "BTC": Fraction("0.125"), "DOGE": Fraction(60_753)}
    for coin, bound in (("ETH", "3100"), ("BTC", "61000"), ("DOGE", "0.126")):
        server.seed(coin, ("1000000",) * 3 if coin == "DOGE" else ("10000",) * 3)
        server.place(user, coin, True, Fraction(bound), sizes[coin], "Ioc")
    assert {coin: position.size for coin, position in server.wallet(user).positions.items()} == sizes
    for coin in sizes:
        server.move(coin, "-22/100")
        server.seed(coin, ("1000000",) * 3 if coin == "DOGE" else ("10000",) * 3)
    assert world.killed(moment), f"{moment} was never reached"
    for _ in range(3):
        with contextlib.suppress(Retryable):  # its fate is open until its end
            world.restarted()
        world.chain.node.mine_at(world.chain.now_s() + 200)
        world.chain.refresh_feeds()
    require_orders_filled_once(world, server)
    actions = [body["action"]["orders"] for body in server.bodies if body["action"]["type"] == "order"]
    assert [len(orders) for orders in actions].count(3) == 1, "the reductions go together"
    cloids = [order["c"] for orders in actions for order in orders]
    assert len(cloids) == len(set(cloids)), "no order is posted twice"
    state = server.state(user)["marginSummary"]
    assert Fraction(state["totalNtlPos"]) <= 3 * Fraction(state["accountValue"])
    positions_left = server.wallet(user).positions
    assert positions_left.keys() == sizes.keys()
    assert all(0 < positions_left[coin].size < size for coin, size in sizes.items()), "each position is cut, and none is turned"
