"""Whole steps whose openings rest at Hyperliquid as limit orders: placed once, filled in parts, ended, and booked fill by fill."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app import Agent
from agent.app.documents.status import status_document
from agent.app.money import shutdown
from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.execution.resting_orders import end_reasons
from agent.layers.futures.requests import Deleverage
from agent.layers.futures.state import margin_account
from agent.localchain import LocalChain
from agent.model import Intent, IntentState
from agent.units import utc_text
from tests.support import agents
from tests.support.futures import EVEN
from tests.support.hyperliquid import AGENT, AGENT_ENV, ETH_AND_BTC, venue_changes, venue_for
from tests.support.hyperliquid_server import HOUSE, HyperliquidServer, Order, ServerPosition
from tests.support.samples import slow


@pytest.fixture
def server(anvil_chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> Iterator[HyperliquidServer]:
    """A wallet on its spot targets, with 10,000 of margin at a venue whose books are empty."""
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    agents.fund(anvil_chain, {"WETH": 50_000, "USDC": 50_000})
    with venue_for(anvil_chain) as server:
        for coin in ("ETH", "BTC"):
            server.move(coin, "0")
        yield server


def limits(server: HyperliquidServer, order_type: str = "gtc", weights: dict[str, str] | None = None, **more: object) -> dict[str, object]:
    changes = venue_changes(server, weights or {"ETH": "100%"})
    return changes | {"futures.order_type": order_type, "futures.order_time": "1h", "futures.leverage_band": "10%", **more}


def resting(server: HyperliquidServer) -> list[Order]:
    return [order for order in server.orders if order.user != HOUSE and order.status == "open" and order.trigger is None]


def position_size(server: HyperliquidServer, chain: LocalChain, coin: str = "ETH") -> Fraction:
    return server.wallet(chain.wallet.address).positions.get(coin, ServerPosition()).size


def step(agent: Agent) -> StepOutcome:
    return agent.rebalance(send=True, confirm=agents.yes)


def sent_actions(server: HyperliquidServer) -> list[dict[str, Any]]:
    return [body for body in server.bodies if body["action"]["type"] != "approveAgent"]


def bid(server: HyperliquidServer) -> None:
    server.place(HOUSE, "ETH", True, Fraction(2_995), Fraction(100), "Gtc")


def placed(server: HyperliquidServer) -> list[str]:
    return [body["action"]["orders"][0]["t"]["limit"]["tif"] for body in sent_actions(server) if body["action"]["type"] == "order"]


def orders(agent: Agent) -> list[Intent]:
    return [intent for intent in agent.context.store.journal.intents() if "cancel" not in intent.note]


def require_settled(agent: Agent, server: HyperliquidServer, chain: LocalChain) -> None:
    """Require that the journal has every fill of the venue exactly once, and nothing is open or unbooked."""
    journal = agent.context.store.journal
    assert journal.open_intents() == () == journal.unbooked_intents()
    fills = [fill for intent in journal.intents() if intent.receipt for fill in intent.receipt.fills]
    mine = {str(fill["tid"]): fill for fill in server.fills if fill["user"] == chain.wallet.address.lower()}
    assert sorted(fill.fill_id for fill in fills) == sorted(mine)
    assert sum(fill.size_raw for fill in fills) == position_size(server, chain) * 10**4


def test_an_opening_rests_and_is_booked_fill_by_fill(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        journal = agent.context.store.journal
        budgets = agent.context.store.budgets
        assert step(agent).kind is OutcomeKind.DONE
        [order] = resting(server)
        [intent] = journal.open_intents()
        assert (order.tif, order.left, order.is_buy) == ("Gtc", order.size, True)
        assert placed(server) == ["Gtc"]
        assert intent.is_resting
        assert intent.state is IntentState.MINED
        assert intent.tx_hash == order.cloid
        assert order.price <= server.coin("ETH").mark * Fraction(105, 100)
        assert budgets.history(anvil_chain.now_s()).budgets.loss_24h == 0
        waits = step(agent)
        assert end_reasons(replace(waits, kind=OutcomeKind.HALT, reason="a depeg"), [str(intent.tx_hash)]) == {order.cloid: "a depeg"}
        exits = replace(waits.decision_result, exit_token="0x01")
        assert end_reasons(replace(waits, decision_result=exits), [str(intent.tx_hash)]) == {order.cloid: "an exit is due"}
        assert (waits.kind, waits.transactions, len(sent_actions(server))) == (OutcomeKind.HOLD, (), 1), waits.reason
        losses = []
        for number in (1, 2):
            server.trade_through("ETH", "1.5")
            assert step(agent).transactions == ()
            [intent] = journal.open_intents()
            assert intent.is_resting
            assert intent.receipt is not None
            assert len(intent.receipt.fills) == number
            assert journal.unbooked_intents() == ()
            losses.append(budgets.history(anvil_chain.now_s()).budgets.loss_24h)
        assert losses[0] > 0
        assert losses[1] == 2 * losses[0]
        server.trade_through("ETH", str(float(order.left)))
        assert step(agent).transactions == ()
        assert len(sent_actions(server)) == 1
        require_settled(agent, server, anvil_chain)
        [intent] = journal.intents()
        assert intent.state is IntentState.FINAL
        assert order.status == "filled"
        assert step(agent).kind is OutcomeKind.HOLD
        [entry] = agent.context.store.ledger.entries_of([intent.id])
        assert entry.futures is not None
        assert [fill.size_raw for fill in entry.futures.fills] == [15_000, 15_000, 36_666]
        fees = sum(Fraction(fill["fee"]) for fill in server.fills if fill["user"] == anvil_chain.wallet.address.lower())
        assert sum(fill.fee_raw for fill in entry.futures.fills) == fees * 10**6


def test_status_history_and_txs_show_an_order_that_rests(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        server.trade_through("ETH", "1.5")
        step(agent)
        [order] = resting(server)
        config = tmp_path / "trimtab.toml"
        [open_order] = status_document(agent.status())["futures"]["open_orders"]
        [line] = [row for row in api.transactions(config)["transactions"] if row["open"]]
        assert line["order"] == open_order
        assert Fraction(open_order["price"]) == order.price
        assert (open_order["side"], open_order["symbol"], Fraction(open_order["size"]), open_order["filled"]) == (
            "buy",
            "ETH",
            order.size,
            "1.5",
        )
        assert open_order["expires"] == utc_text(order.taken_ms // 1000 + 3_600)
        past = [transaction for row in api.history(config)["steps"] for transaction in row["transactions"]]
        assert [transaction["status"] for transaction in past] == ["resting"]


def test_two_markets_rest_beside_each_other_within_the_limits(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server, weights=ETH_AND_BTC), EVEN) as agent:
        assert step(agent).kind is OutcomeKind.DONE
        assert sorted((order.coin, order.is_buy) for order in resting(server)) == [("BTC", False), ("ETH", True)]
        account = margin_account(agent.step_input().snapshot)
        assert account is not None
        assert account.positions == ()
        assert len(account.resting_orders) == 2
        gross = sum(order.size * order.price for order in resting(server))
        assert gross < 20_500, "the second counts the first as filled"
        assert step(agent).transactions == ()
        assert len(sent_actions(server)) == 2


def test_marketable_order__takes_what_is_there_and_its_rest_rests(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path
) -> None:
    server.seed("ETH", ("1",))
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        assert step(agent).kind is OutcomeKind.DONE
        [order] = resting(server)
        assert position_size(server, anvil_chain) == 1 == order.size - order.left
        [intent] = agent.context.store.journal.open_intents()
        assert intent.receipt is not None
        assert [fill.size_raw for fill in intent.receipt.fills] == [10_000]


def test_an_order_whose_time_passed_is_cancelled_and_placed_anew(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        [first] = resting(server)
        server.trade_through("ETH", "2")
        anvil_chain.node.mine_at(anvil_chain.now_s() + 3_601)
        outcome = step(agent)
        assert "its time passed" in outcome.reason, outcome.reason
        [second] = resting(server)
        assert first.status == "canceled"
        assert second.cloid != first.cloid
        assert second.size < first.size, "what was filled is not opened twice"
        [ended] = [order for order in orders(agent) if order.tx_hash == first.cloid]
        assert ended.state is IntentState.FINAL
        assert ended.receipt is not None
        assert len(ended.receipt.fills) == 1
        history = agent.context.store.budgets.history(anvil_chain.now_s())
        assert history.failures.reverts_in_row == 0, "an order that ends without a fill is no failure"


def soft_pause(agent: Agent, server: HyperliquidServer, chain: LocalChain) -> None:
    agent.context.kill_switch.pause("by a test", chain.now_s())


def hard_pause(agent: Agent, server: HyperliquidServer, chain: LocalChain) -> None:
    agent.context.kill_switch.pause("by a test", chain.now_s(), hard=True)
    agent.cancel_and_revoke("by a test")


@pytest.mark.parametrize(("filled", "cancelled"), [pytest.param("3", 1, id="in part"), pytest.param("6.6666", 0, id="whole")])
def test_hard_pause__names_what_was_filled_of_a_resting_order(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, filled: str, cancelled: int
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        server.trade_through("ETH", filled)
        agent.context.kill_switch.pause("by a test", anvil_chain.now_s(), hard=True)
        outcome = agent.cancel_and_revoke("by a test")
        assert position_size(server, anvil_chain) == Fraction(filled)
        assert f"{cancelled} of 1 pending transactions cancelled; {filled} of 6.6666 ETH of " in outcome.reason


def unknown_account(agent: Agent, server: HyperliquidServer, chain: LocalChain) -> None:
    server.lie.update(accountValue=Fraction(2))


def not_wanted(agent: Agent, server: HyperliquidServer, chain: LocalChain) -> None:
    server.wallet(chain.wallet.address).usd -= 6_000


def stale_price(agent: Agent, server: HyperliquidServer, chain: LocalChain) -> None:
    server.move("ETH", "-6/100")


ENDS: dict[str, tuple[Callable[[Agent, HyperliquidServer, LocalChain], None], str]] = {
    "pause": (soft_pause, "kill_switch"),
    "hard pause": (hard_pause, "kill_switch"),
    "unknown account": (unknown_account, "contradicts itself"),
    "plan": (not_wanted, "order ended"),
    "price": (stale_price, "beyond the bound"),
}


@pytest.mark.parametrize("cause", ENDS)
def test_an_order_ends_with_its_cause(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, cause: str) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        [order] = resting(server)
        change, why = ENDS[cause]
        change(agent, server, anvil_chain)
        outcome = step(agent)
        assert order.status == "canceled", outcome.reason
        assert why in outcome.reason, outcome.reason
        ended = {order.tx_hash: order.state for order in orders(agent)}
        assert ended[order.cloid] is IntentState.FINAL
        if "pause" in cause:
            assert resting(server) == []
            assert agent.context.store.journal.open_intents() == ()


@pytest.mark.parametrize("cause", ["pause", "price"])
def test_an_order_ends_although_the_agents_cannot_be_read(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, cause: str
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        [order] = resting(server)
        change, _ = ENDS[cause]
        change(agent, server, anvil_chain)
        server.read_faults = {"extraAgents": 503}
        with contextlib.suppress(Retryable):
            step(agent)
        assert order.status == "canceled"


def test_owner_s_reduction__ends_resting_orders_as_a_market_order(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        [order] = resting(server)
        server.trade_through("ETH", "2")
        bid(server)
        closed = agent.adjust_futures(Deleverage(None, "ETH"), send=True, confirm=agents.yes)
        assert closed.kind is OutcomeKind.DONE, closed.reason
        assert order.status == "canceled"
        assert placed(server) == ["Gtc", "Ioc"]
        assert position_size(server, anvil_chain) == 0
        assert agent.context.store.journal.open_intents() == ()


def test_an_emergency_ends_resting_orders_before_it_reduces(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    wallet = server.wallet(anvil_chain.wallet.address)
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        [order] = resting(server)
        server.trade_through("ETH", "3")
        wallet.usd -= Fraction(9_500)
        bid(server)
        outcome = step(agent)
        assert order.status == "canceled", outcome.reason
        assert "positions are reduced" in outcome.reason, outcome.reason
        assert placed(server)[1:]
        assert set(placed(server)[1:]) == {"Ioc"}
        assert position_size(server, anvil_chain) < 3
        kinds = [body["action"]["type"] for body in sent_actions(server)]
        assert kinds[:3] == ["order", "cancelByCloid", "order"]


def test_a_cancel_that_is_lost_holds_up_no_emergency(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    wallet = server.wallet(anvil_chain.wallet.address)
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        server.trade_through("ETH", "3")
        wallet.usd -= Fraction(9_500)
        bid(server)
        server.faults = ["dropped"]
        outcome = step(agent)
        assert "Ioc" in placed(server), outcome.reason
        assert position_size(server, anvil_chain) < 3, outcome.reason
        anvil_chain.node.mine_at(anvil_chain.now_s() + 1_000)
        step(agent)
        assert resting(server) == []
        assert agent.context.store.journal.open_intents() == ()


def test_lost_cancel__is_sent_again_once_it_cannot_arrive(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    def cancels() -> int:
        return sum(body["action"]["type"] == "cancelByCloid" for body in server.bodies)

    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        agent.context.kill_switch.pause("by a test", anvil_chain.now_s())
        server.faults = ["dropped"]
        for _ in range(2):
            step(agent)
            assert cancels() == 1
            assert len(resting(server)) == 1
        anvil_chain.node.mine_at(anvil_chain.now_s() + 1_000)
        step(agent)
        assert cancels() == 2
        assert resting(server) == []
        assert agent.context.store.journal.open_intents() == ()


@pytest.mark.parametrize("fault", ["dropped", "down"])
def test_stop__is_unfinished_while_an_order_rests(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, fault: str) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        server.faults = [fault]
        report = shutdown.stop(agent, send=True, confirm=agents.yes)
        assert len(resting(server)) == 1
        assert (report.state, "is still open at the venue" in report.reason) == ("unfinished", True), report.reason
        anvil_chain.node.mine_at(anvil_chain.now_s() + 1_000)
        report = shutdown.stop(agent, send=True, confirm=agents.yes)
        assert (report.state, resting(server)) == ("stopped", []), report.reason


def test_a_post_only_order_rests_at_the_middle_of_the_book(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    server.seed("ETH")
    with agents.agent_on(anvil_chain, tmp_path, limits(server, "post_only"), EVEN) as agent:
        assert step(agent).kind is OutcomeKind.DONE
        [order] = resting(server)
        assert (order.tif, order.left, position_size(server, anvil_chain)) == ("Alo", order.size, 0)
        assert order.price <= server.middle(server.coin("ETH"))


def test_crossing_post_only_order__is_tried_by_the_next_step(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server, "post_only"), EVEN) as agent:
        server.place(HOUSE, "ETH", False, Fraction(2_990), Fraction(1), "Gtc")
        for tries in (1, 2, 3, 4):
            outcome = step(agent)
            assert "Post only order would have immediately matched" in outcome.reason, outcome.reason
            assert outcome.kind is OutcomeKind.REFUSED
            assert len(sent_actions(server)) == tries, "once in a step"
        history = agent.context.store.budgets.history(anvil_chain.now_s())
        assert history.failures.reverts_in_row == 0
        assert position_size(server, anvil_chain) == 0
        server.move("ETH", "0")
        assert step(agent).kind is OutcomeKind.DONE
        assert len(resting(server)) == 1


def test_a_list_of_open_orders_that_lags_places_nothing_twice(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = HyperliquidServer.info

    def lagging(venue: HyperliquidServer, body: dict[str, object]) -> object:
        return [] if body["type"] == "frontendOpenOrders" else info(venue, body)

    monkeypatch.setattr(HyperliquidServer, "info", lagging)
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        for _ in range(2):
            outcome = step(agent)
        assert "still rests" in outcome.reason, outcome.reason
        assert len(resting(server)) == 1, outcome.reason


@pytest.mark.parametrize("is_first", [True, False], ids=["before the open orders are listed", "after it"])
def test_an_order_that_fills_during_a_look_is_counted(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    """Twice rather than not at all: with neither order nor position a second one would be opened."""
    info = HyperliquidServer.info

    def filling(venue: HyperliquidServer, body: dict[str, Any]) -> Any:
        answer = info(venue, body)
        if body["type"] == "frontendOpenOrders" and resting(venue):
            venue.trade_through("ETH", str(float(resting(venue)[0].left)))
            return info(venue, body) if is_first else answer
        return answer

    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        step(agent)
        [order] = resting(server)
        anvil_chain.node.mine_at(anvil_chain.now_s() + 700)
        anvil_chain.refresh_feeds()
        monkeypatch.setattr(HyperliquidServer, "info", filling)
        account = margin_account(agent.step_input().snapshot)
        assert account is not None
        size_raw = order.size * 10**4
        assert account.size_raw("ETH") == size_raw
        assert [resting_order.size_raw for resting_order in account.resting_orders] == ([] if is_first else [size_raw])


@pytest.mark.parametrize("fault", ["lost", "dropped", *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("late", "garbled"))])
def test_an_order_whose_answer_is_lost_rests_once(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, fault: str) -> None:
    with agents.agent_on(anvil_chain, tmp_path, limits(server), EVEN) as agent:
        server.faults = [fault]
        for _ in range(3):
            with contextlib.suppress(Retryable):
                step(agent)
            anvil_chain.node.mine_at(anvil_chain.now_s() + 200)
        assert len(resting(server)) == 1
        [intent] = agent.context.store.journal.open_intents()
        assert intent.is_resting
        assert agent.context.store.journal.unbooked_intents() == ()


FAULTS = ("", "", "", "lost", "dropped", "late", "garbled", "down")


def random_event(dice: random.Random, agent: Agent, server: HyperliquidServer, chain: LocalChain) -> None:
    """Let one thing happen at the venue, or between two steps."""
    match dice.randrange(8):
        case 0 | 1 if open_orders := resting(server):
            order = dice.choice(open_orders)
            lots = int(order.left * 10 ** server.coin(order.coin).size_decimals)
            server.trade_through(order.coin, str(Fraction(dice.randint(1, lots), 10 ** server.coin(order.coin).size_decimals)))
        case 2:
            coin = dice.choice(["ETH", "BTC"])
            server.move(coin, f"{dice.randint(-40, 40)}/1000")
        case 3:
            chain.node.mine_at(chain.now_s() + dice.choice([60, 700, 3_700]))
        case 4:
            server.faults = [dice.choice(FAULTS) for _ in range(3)]
        case 5:
            server.hides_orders = dice.randrange(6)
        case 6:
            server.seed(dice.choice(["ETH", "BTC"]), ("2",))
        case 7:
            switch = agent.context.kill_switch
            if switch.is_paused():
                switch.resume("by a test", chain.now_s())
            else:
                switch.pause("by a test", chain.now_s())
        case _:
            pass


@pytest.mark.parametrize("seed", [1, *slow(range(2, 12))])
def test_fills__are_booked_once_and_no_market_has_two_orders(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    changes = limits(server, dice.choice(["gtc", "post_only"]), ETH_AND_BTC)
    with agents.agent_on(anvil_chain, tmp_path, changes, EVEN) as agent:
        loaded = agent.context.loaded_config
    for _ in range(6):
        with agents.reopened_agent(anvil_chain, loaded) as agent:
            for _ in range(4):
                random_event(dice, agent, server, anvil_chain)
                with contextlib.suppress(Retryable):
                    step(agent)
                coins = [order.coin for order in resting(server)]
                assert len(coins) == len(set(coins))
    server.faults = []
    server.hides_orders = 0
    with agents.reopened_agent(anvil_chain, loaded) as agent:
        agent.context.kill_switch.pause("by a test", anvil_chain.now_s())
        for _ in range(3):
            with contextlib.suppress(Retryable):
                step(agent)
            anvil_chain.node.mine_at(anvil_chain.now_s() + 1_000)
        assert resting(server) == []
        journal = agent.context.store.journal
        assert journal.open_intents() == () == journal.unbooked_intents()
        done = journal.intents(limit=1_000)
        owner = anvil_chain.wallet.address.lower()
        numbers = [fill.fill_id for transaction in done if transaction.receipt for fill in transaction.receipt.fills if fill.fill_id]
        tifs = {order.oid: order.tif for order in server.orders}
        assert sorted(numbers) == sorted(str(fill["tid"]) for fill in server.fills if fill["user"] == owner and tifs[fill["oid"]] != "Ioc")
        for coin, unit in (("ETH", 10**4), ("BTC", 10**5)):
            booked = sum(
                fill.size_raw for transaction in done if transaction.receipt for fill in transaction.receipt.fills if fill.market == coin
            )
            assert booked == position_size(server, anvil_chain, coin) * unit
        cloids = [body["action"]["orders"][0]["c"] for body in sent_actions(server) if body["action"]["type"] == "order"]
        assert len(cloids) == len(set(cloids))
