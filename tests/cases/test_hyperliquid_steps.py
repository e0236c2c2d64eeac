"""Whole steps with Hyperliquid as the futures venue: opened, reduced, filled in part, refused, and settled to the unit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.records.ledger import refresh_ledger
from agent.app.start.trust import pin_all
from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.requests import Deleverage, MarginAccountRequest
from agent.layers.futures.state import FuturesState, margin_account
from agent.localchain import LocalChain
from agent.margin import account as margin
from agent.model import Alert, AlertKind, FuturesReading, IntentKind, IntentState
from agent.model.futures import MarginDeposit, PerpOrder
from agent.policy import failures
from agent.ports.perpetuals import futures_grant
from agent.venues.hyperliquid.client import HyperliquidClient
from tests.support import agents
from tests.support.agents import require_rebalance
from tests.support.futures import EVEN
from tests.support.hyperliquid import ETH_AND_BTC, server, venue_changes
from tests.support.hyperliquid_server import DAY_MS, HyperliquidServer, Order, ServerPosition

__all__ = ["server"]


def position_size(server: HyperliquidServer, chain: LocalChain, coin: str) -> Fraction:
    return server.wallet(chain.wallet.address).positions.get(coin, ServerPosition()).size


def posted(server: HyperliquidServer) -> int:
    """Number of orders posted, several of which may go in one action."""
    return sum(len(body["action"]["orders"]) for body in server.bodies if body["action"]["type"] == "order")


def orders_of(outcome: StepOutcome) -> list[IntentKind]:
    return [intent.kind for intent in outcome.transactions if intent.kind is IntentKind.FUTURES]


def test_a_step_opens_to_its_targets_one_order_each(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, ETH_AND_BTC), EVEN) as agent:
        outcome = require_rebalance(agent)
        assert len(orders_of(outcome)) == 2 == posted(server)
        assert position_size(server, anvil_chain, "ETH") > 0 > position_size(server, anvil_chain, "BTC")
        nonces = [intent.tx.nonce for intent in outcome.transactions]
        assert sorted(set(nonces)) == nonces
        assert not any(nonce % 2 for nonce in nonces), "odd ones are those of cancels"
        store = agent.context.store
        for intent in outcome.transactions:
            assert intent.state is IntentState.FINAL
            assert intent.receipt is not None
            [fill] = intent.receipt.fills
            granted = futures_grant(store.journal.grant(intent.id))
            assert granted is not None
            assert (fill.market, fill.size_raw) == (granted.action.market, granted.action.size_raw)
        assert store.journal.open_intents() == () == store.journal.unbooked_intents()
        history = store.budgets.history(anvil_chain.now_s())
        assert 0 < history.budgets.loss_24h < 100 * agents.USD
        assert history.budgets.gas_24h_wei == 0
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert (again.kind, again.transactions) == (OutcomeKind.HOLD, ()), again.reason


# --- Answers that are lost, late or false.


@pytest.mark.parametrize("fault", ["lost", pytest.param("late", marks=pytest.mark.slow), "garbled"])
def test_a_lost_answer_is_resolved_and_the_order_not_sent_again(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, fault: str
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        server.faults = [fault]
        outcome = require_rebalance(agent)
        [intent] = outcome.transactions
        assert intent.state is IntentState.FINAL
        assert posted(server) == 1
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.HOLD
        assert posted(server) == 1


def test_an_order_found_late_is_settled_by_the_next_step(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        server.faults, server.hides_orders = ["lost"], 5
        with pytest.raises(Retryable, match="outcome of the order"):
            agent.rebalance(send=True, confirm=agents.yes)
        [waiting] = agent.context.store.journal.open_intents()
        assert waiting.state is IntentState.BROADCAST
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (outcome.kind, posted(server)) == (OutcomeKind.HOLD, 1), outcome.reason
        [settled] = agent.context.store.journal.intents()
        assert settled.state is IntentState.FINAL
        assert settled.receipt is not None
        [fill] = settled.receipt.fills
        assert fill.size_raw == position_size(server, anvil_chain, "ETH") * 10**4
        assert agent.context.store.journal.unbooked_intents() == ()


@pytest.mark.parametrize("fault", ["dropped", pytest.param("down", marks=pytest.mark.slow)])
def test_order_never_seen__ends_with_its_time_and_is_redecided(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, fault: str
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        server.faults = [fault]
        with pytest.raises(Retryable, match="outcome of the order"):
            agent.rebalance(send=True, confirm=agents.yes)
        with pytest.raises(Retryable, match="outcome of an earlier order"):
            agent.rebalance(send=True, confirm=agents.yes)
        assert posted(server) == 1, "nothing is sent while its fate is open"
        anvil_chain.node.mine_at(anvil_chain.now_s() + agent.context.config.execution.deadline + 1)
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (outcome.kind, posted(server)) == (OutcomeKind.DONE, 2), outcome.reason
        newest, never = agent.context.store.journal.intents()
        assert (newest.state, never.state) == (IntentState.FINAL, IntentState.REVERTED)
        assert newest.tx.nonce > never.tx.nonce
        assert newest.tx_hash != never.tx_hash
        replayed = server.replay(server.bodies[-2])
        assert "expired" in replayed["response"], "what was dropped can never happen"


def test_partial_fill__is_booked_exactly_and_the_rest_redecided(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    server.move("ETH", "0")
    server.seed("ETH", ("1", "1"))
    changes = venue_changes(server, {"ETH": "100%"}) | {"futures.leverage_band": "10%"}
    with agents.agent_on(anvil_chain, tmp_path, changes, EVEN) as agent:
        outcome = require_rebalance(agent)
        assert "the book has no order" in outcome.reason, "the rest found no seller"
        first = outcome.transactions[0]
        granted = futures_grant(agent.context.store.journal.grant(first.id))
        assert granted is not None
        assert isinstance(granted.action, PerpOrder)
        assert first.receipt is not None
        [fill] = first.receipt.fills
        assert fill.size_raw == 2 * 10**4 < granted.action.size_raw
        assert first.state is IntentState.FINAL
        server.seed("ETH")
        anvil_chain.node.mine_at(anvil_chain.now_s() + 300)  # its market backs off after the refusal
        require_rebalance(agent)
        fills = [fill for intent in agent.context.store.journal.intents() if intent.receipt for fill in intent.receipt.fills]
        assert sum(fill.size_raw for fill in fills) == position_size(server, anvil_chain, "ETH") * 10**4
        assert sum(fill.quote_raw for fill in fills) == sum(
            -int(Fraction(fill["px"]) * Fraction(fill["sz"]) * 10**6) for fill in server.fills if fill["crossed"]
        )


# --- A venue that is not to be believed, or cannot be reached: nothing is done.


FAULTS: dict[str, Callable[[HyperliquidServer], None]] = {
    "down": lambda server: server.read_faults.update({"*": 503}),
    "rate limit": lambda server: server.read_faults.update({"clearinghouseState": 429}),
    "figures": lambda server: server.lie.update(crossMaintenanceMarginUsed=Fraction(2)),
    "value": lambda server: server.lie.update(accountValue=Fraction(2)),
    "clock ahead": lambda server: setattr(server, "skew_ms", 3 * DAY_MS),
    "clock behind": lambda server: setattr(server, "skew_ms", -3 * DAY_MS),
}


ALIKE = ("rate limit", "value", "clock behind")
"""Each is met in its place by another of FAULTS."""


@pytest.mark.parametrize("fault", [pytest.param(fault, marks=pytest.mark.slow) if fault in ALIKE else fault for fault in FAULTS])
def test_an_account_that_is_not_known_orders_nothing(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, fault: str
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        FAULTS[fault](server)
        server.move("ETH", "-30/100")
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert outcome.kind in (OutcomeKind.HOLD, OutcomeKind.HALT), outcome.reason
        assert outcome.transactions == (), outcome.reason
        unknown = agent.step_input().snapshot.layer(FuturesReading).unknown_reason
        assert unknown
        assert unknown in api.current_futures_report(agent).step.snapshot.layer(FuturesReading).unknown_reason
        assert posted(server) == 1


def unapproved(server: HyperliquidServer, chain: LocalChain) -> None:
    server.agents = []


def expired(server: HyperliquidServer, chain: LocalChain) -> None:
    server.agents = [replace(agent, until_ms=server.now_ms + 1_000) for agent in server.agents]


def renamed(server: HyperliquidServer, chain: LocalChain) -> None:
    server.agents = [replace(agent, name="another") for agent in server.agents]


def of_another(server: HyperliquidServer, chain: LocalChain) -> None:
    server.agents = [replace(agent, account="0x" + "22" * 20) for agent in server.agents]


def another_key(server: HyperliquidServer, chain: LocalChain) -> None:
    server.agents = [replace(agent, address="0x" + "33" * 20) for agent in server.agents]


@pytest.mark.parametrize(
    "change", [unapproved, *(pytest.param(approval, marks=pytest.mark.slow) for approval in (expired, renamed, of_another)), another_key]
)
def test_agent_that_may_not_trade__holds_futures_and_not_spot(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, change: Callable[[HyperliquidServer, LocalChain], None]
) -> None:
    agents.fund(anvil_chain, {"WETH": 70_000, "USDC": 30_000})
    server.wallet(anvil_chain.wallet.address).positions["ETH"] = ServerPosition(Fraction(18), Fraction(54_000))
    server.wallet(anvil_chain.wallet.address).usd -= 54_000
    change(server, anvil_chain)
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert IntentKind.SWAP in [intent.kind for intent in outcome.transactions], outcome.reason
        assert "trimtab delegate" in outcome.reason, "a reduction is due, and the reason names the remedy"
        assert ("restart" in outcome.reason) is (change is another_key)
        assert orders_of(outcome) == []
        assert posted(server) == 0
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert again.transactions == (), again.reason
        assert "trimtab delegate" in again.reason, again.reason
        for request in (Deleverage(10_000), Deleverage(None, "ETH")):
            refused = agent.adjust_futures(request, send=True, confirm=agents.yes)
            assert refused.kind is OutcomeKind.REFUSED
            assert "agent" in refused.reason
        assert posted(server) == 0


def test_a_held_key_is_alerted_until_another_is_approved(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    facts = RunFacts(paused=False, heartbeat_fault="", low_gas_wei=None)
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        assert agent_alerts(agent.rebalance(send=False), facts) == []
        server.agents[0].until_ms = server.now_ms + 2 * DAY_MS
        pass_minute(anvil_chain)
        [soon] = agent_alerts(agent.rebalance(send=False), facts)
        server.agents = []
        pass_minute(anvil_chain)
        [held_up] = agent_alerts(agent.rebalance(send=False), facts)
        assert soon.is_lasting
        assert held_up.is_lasting
        assert soon.key != held_up.key
        assert held_up.kind is AlertKind.HALT
        assert "trimtab delegate --send" in held_up.text


def pass_minute(chain: LocalChain) -> None:
    """Let the minute pass for which the approved agents are kept."""
    chain.node.mine_at(chain.now_s() + 60)


def agent_alerts(outcome: StepOutcome, facts: RunFacts) -> list[Alert]:
    return [alert for alert in cycle_alerts(outcome, facts) if alert.key.startswith("futures:agent")]


def test_an_agent_approved_a_second_time_signs_nothing_more(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        server.agents = [replace(agent, until_ms=agent.until_ms + DAY_MS) for agent in server.agents]
        pass_minute(anvil_chain)
        server.move("ETH", "-30/100")
        server.seed("ETH")
        outcome = require_rebalance(agent, OutcomeKind.HOLD)
        assert "approved a second time" in outcome.reason
        assert posted(server) == 1


def test_agents_that_cannot_be_read_hold_futures_alone(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(anvil_chain, {"WETH": 70_000, "USDC": 30_000})
    server.read_faults["extraAgents"] = 503
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        outcome = require_rebalance(agent)
        assert orders_of(outcome) == [], outcome.reason
        assert posted(server) == 0, outcome.reason


def test_a_key_ended_between_check_and_order_ends_no_run(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post_orders = HyperliquidClient.post_orders

    def ended_first(venue: HyperliquidClient, body: Mapping[str, object], count: int) -> list[str]:
        server.agents = []
        return post_orders(venue, body, count)

    monkeypatch.setattr(HyperliquidClient, "post_orders", ended_first)
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        outcome = require_rebalance(agent, OutcomeKind.FAILED)
        assert posted(server) == 1, outcome.reason
        [intent] = agent.context.store.journal.intents()
        assert intent.state is IntentState.REVERTED
        pass_minute(anvil_chain)
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.HOLD
        assert posted(server) == 1


def test_a_book_without_an_order_within_the_bound_sends_nothing(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    server.move("ETH", "0")
    server.seed("ETH", step="0.1")
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        outcome = require_rebalance(agent, OutcomeKind.REFUSED)
        assert "no order within the bound" in outcome.reason
        assert posted(server) == 0
        assert agent.context.store.journal.intents() == ()


def test_a_crash_is_reduced_to_below_the_limit(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        server.move("ETH", "-30/100")
        server.seed("ETH")
        before = margin.leverage(margin_account(agent.step_input().snapshot) or pytest.fail("unknown"))
        require_rebalance(agent)
        after = margin.leverage(margin_account(agent.step_input().snapshot) or pytest.fail("unknown"))
        assert before is not None
        assert after is not None
        assert before > 3 >= after
        assert agent.context.store.budgets.history(anvil_chain.now_s()).layer(FuturesState).reduced_notional_24h > 0
        assert server.bodies[-1]["action"]["orders"][0]["r"] is True


def test_dear_gas_on_the_chain_holds_no_reduction_back(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    changes = venue_changes(server, {"ETH": "100%"}) | {"limits.gas_price": "1 wei", "limits.native_floor": "9"}
    anvil_chain.set_native(10**12)
    with agents.agent_on(anvil_chain, tmp_path, changes, EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        server.move("ETH", "-30/100")
        server.seed("ETH")
        outcome = require_rebalance(agent)
        assert orders_of(outcome), outcome.reason


def test_a_paused_agent_posts_nothing(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        agent.context.kill_switch.pause("by a test", anvil_chain.now_s())
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert outcome.transactions == ()
        assert posted(server) == 0


def test_a_deleverage_reduces_and_closes_at_the_venue(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, ETH_AND_BTC), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        sent = posted(server)
        outcome = agent.adjust_futures(Deleverage(10_000), send=True, confirm=agents.yes)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert len(orders_of(outcome)) == 2 == posted(server) - sent
        after = margin.leverage(margin_account(agent.step_input().snapshot) or pytest.fail("unknown"))
        assert after is not None
        assert after <= 1
        closed = agent.adjust_futures(Deleverage(None, "BTC"), send=True, confirm=agents.yes)
        assert closed.kind is OutcomeKind.DONE, closed.reason
        assert position_size(server, anvil_chain, "BTC") == 0 < position_size(server, anvil_chain, "ETH")
        refused = agent.adjust_futures(MarginAccountRequest(MarginDeposit(10**6)), send=True, confirm=agents.yes)
        assert refused.kind is OutcomeKind.REFUSED
        assert "off-chain" in refused.reason
        assert agent.context.store.journal.open_intents() == ()


def test_position_not_in_the_config__holds_no_reduction_back(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    """The agent key was stolen and bought BTC; ETH alone is named."""
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        btc = server.coin("BTC").mark
        wallet = server.wallet(anvil_chain.wallet.address)
        size = Fraction(round(15_000 / btc, 3))
        wallet.positions["BTC"] = ServerPosition(size, size * btc)
        wallet.usd -= size * btc
        before = position_size(server, anvil_chain, "ETH")
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        account = margin_account(outcome.step_input.snapshot)
        assert account is not None
        assert [market.is_configured for market in account.markets if market.market == "BTC"] == [False]
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert "the account has a position in BTC, which the config does not name" in outcome.reason
        assert 0 < position_size(server, anvil_chain, "ETH") < before
        assert position_size(server, anvil_chain, "BTC") == size


def test_venue_that_renumbers_markets__is_unknown_and_unsigned(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        server.move("ETH", "-30/100")
        server.seed("ETH")
        server.coins.reverse()
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert outcome.transactions == ()
        assert posted(server) == 1
        unknown = agent.step_input().snapshot.layer(FuturesReading).unknown_reason
        assert "number" in unknown
        assert "pinned" in unknown
        assert "trimtab trust" in unknown
        server.coins.reverse()
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        assert posted(server) == 2


def test_a_market_without_a_pin_is_not_traded_until_trust(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    loaded = agents.trusted_config(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN)
    with agents.reopened_agent(anvil_chain, loaded) as agent:
        agent.context.store.trust.pin_markets("testnet", {"BTC": 0})
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert orders_of(outcome) == []
        assert posted(server) == 0
        assert "ETH" in outcome.reason
        assert "trimtab trust" in outcome.reason
    assert pin_all(loaded, [anvil_chain.transport])["markets"] == [
        {"market": "ETH", "number": 1, "state": "new"},
        {"market": "DOGE", "number": 2, "state": "new"},
    ]
    with agents.reopened_agent(anvil_chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
    server.coins.reverse()
    assert pin_all(loaded, [anvil_chain.transport])["markets"] == [
        {"market": "ETH", "number": 1, "state": "unchanged"},
        {"market": "DOGE", "number": 0, "state": "CHANGED"},
        {"market": "BTC", "number": 2, "state": "CHANGED"},
    ]


@pytest.mark.parametrize("mode", ["unifiedAccount", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("portfolioMargin",))])
def test_a_safe_book_whose_account_becomes_unified_is_not_sold(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, mode: str
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}, "1x"), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        before = position_size(server, anvil_chain, "ETH")
        server.wallet(anvil_chain.wallet.address).mode = mode
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert orders_of(outcome) == [], outcome.reason
        assert posted(server) == 1, outcome.reason
        assert position_size(server, anvil_chain, "ETH") == before, outcome.reason
        unknown = agent.step_input().snapshot.layer(FuturesReading).unknown_reason
        assert mode in unknown
        assert "standard mode" in unknown


def test_account_unified_after_reading__gets_no_opening(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    wallet = server.wallet(anvil_chain.wallet.address)

    def unify(_: StepOutcome) -> bool:
        wallet.mode = "unifiedAccount"
        return True

    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=unify)
        assert posted(server) == 0, outcome.reason
        assert "unifiedAccount" in outcome.reason
        wallet.mode = "disabled"
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        assert posted(server) == 1


# --- Stops that rest at the venue, for the time in which the agent is down.


def stops(server: HyperliquidServer) -> list[Order]:
    return [order for order in server.orders if order.trigger is not None and order.status == "open"]


def with_stops(server: HyperliquidServer, weights: Mapping[str, str], leverage: str = "2x") -> dict[str, object]:
    return venue_changes(server, weights, leverage, resting_stop="2%") | {"futures.leverage_band": "10%"}


def test_stops__are_kept_replaced_and_cancelled_with_positions(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, with_stops(server, ETH_AND_BTC), EVEN) as agent:
        require_rebalance(agent)
        long, short = sorted(stops(server), key=lambda order: order.is_buy)
        assert (long.coin, long.left, long.is_reduce_only) == ("ETH", position_size(server, anvil_chain, "ETH"), True)
        assert (short.coin, short.left, short.is_reduce_only) == ("BTC", -position_size(server, anvil_chain, "BTC"), True)
        assert long.trigger is not None
        assert long.price < long.trigger < server.coin("ETH").mark
        assert short.trigger is not None
        assert short.price > short.trigger > server.coin("BTC").mark
        account = margin_account(agent.step_input().snapshot)
        assert account is not None
        assert {resting_stop.cloid for resting_stop in account.resting_stops} == {long.cloid, short.cloid}
        assert all(intent.state is IntentState.FINAL for intent in agent.context.store.journal.intents())
        sent = len(server.bodies)
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert again.transactions == (), again.reason
        assert len(server.bodies) == sent, again.reason
        server.move("ETH", "-12/100")
        server.seed("ETH")
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        assert {(order.coin, order.left) for order in stops(server)} == {
            (coin, abs(position_size(server, anvil_chain, coin))) for coin in ("ETH", "BTC")
        }
        assert len(stops(server)) == 2
        closed = agent.adjust_futures(Deleverage(None, "BTC"), send=True, confirm=agents.yes)
        assert closed.kind is OutcomeKind.DONE, closed.reason
        server.coin("BTC").is_delisted = True
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        assert "BTC" not in [order.coin for order in stops(server)]


def test_a_stop_is_placed_although_the_agents_cannot_be_read(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, with_stops(server, {"ETH": "100%"}), EVEN) as agent:
        fault = lambda: server.read_faults.update(extraAgents=503)  # noqa: E731
        outcome = agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(1, fault))
        assert [stop.coin for stop in stops(server)] == ["ETH"], outcome.reason


def test_stop__closes_a_dead_agent_s_position_before_liquidation(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, with_stops(server, {"ETH": "100%"}), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
    [stop] = stops(server)
    server.move("ETH", "-40/100")
    server.seed("ETH")
    assert server.fire("ETH") == []
    assert position_size(server, anvil_chain, "ETH") > 0
    server.move("ETH", "-15/100")
    server.seed("ETH")
    value = Fraction(server.state(anvil_chain.wallet.address.lower())["marginSummary"]["accountValue"])
    assert value > 0
    assert server.fire("ETH") == [stop]
    assert position_size(server, anvil_chain, "ETH") == 0
    with agents.reopened_agent(anvil_chain, agent.context.loaded_config) as restarted:
        account = margin_account(restarted.step_input().snapshot)
        assert account is not None
        assert account.positions == ()
        assert account.resting_stops == ()
        assert margin.account_value_raw(account) > 0
        assert restarted.context.store.journal.open_intents() == ()


@pytest.mark.parametrize("fault", ["lost", "dropped", *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("late", "garbled"))])
def test_a_stop_whose_answer_is_lost_rests_once(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, fault: str) -> None:
    with agents.agent_on(anvil_chain, tmp_path, with_stops(server, {"ETH": "100%"}), EVEN) as agent:
        server.faults = ["", fault]
        with contextlib.suppress(Retryable):
            agent.rebalance(send=True, confirm=agents.yes)
        anvil_chain.node.mine_at(anvil_chain.now_s() + 1_000)
        for _ in range(2):
            agent.rebalance(send=True, confirm=agents.yes)
        [stop] = stops(server)
        assert stop.left == position_size(server, anvil_chain, "ETH")
        assert agent.context.store.journal.open_intents() == () == agent.context.store.journal.unbooked_intents()


def test_a_venue_that_rejects_stops_holds_up_nothing_else(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    server.takes_stops = False
    agents.fund(anvil_chain, {"WETH": 70_000, "USDC": 30_000})
    with agents.agent_on(anvil_chain, tmp_path, with_stops(server, {"ETH": "100%"}), EVEN) as agent:
        sent = [intent.kind for _ in range(6) for intent in agent.rebalance(send=True, confirm=agents.yes).transactions]
        assert IntentKind.SWAP in sent
        history = agent.context.store.budgets.history(anvil_chain.now_s())
        assert history.failures.reverts_in_row == 0
        assert 1 < posted(server) <= 1 + failures.MAX_REVERTS_IN_ROW


def test_pause__leaves_stops_and_a_config_without_cancels_them(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, with_stops(server, {"ETH": "100%"}), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        agent.context.kill_switch.pause("by a test", anvil_chain.now_s(), hard=True)
        agent.cancel_and_revoke("by a test")
        assert len(stops(server)) == 1, "it only reduces, and the agent sends nothing now"
        agent.context.kill_switch.resume("by a test", anvil_chain.now_s())
        server.place(anvil_chain.wallet.address.lower(), "ETH", False, Fraction(9_000), Fraction(1), "Gtc")
    off = agents.agent_config(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN)
    with agents.reopened_agent(anvil_chain, off) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        assert stops(server) == []
        assert server.orders[-1].status == "open", "an order of the owner is left alone"


def test_a_position_below_ten_dollars_is_closed_whole(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    wallet = server.wallet(anvil_chain.wallet.address)
    wallet.positions["ETH"] = ServerPosition(Fraction("0.002"), Fraction(6))
    wallet.usd -= 6
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        closed = agent.adjust_futures(Deleverage(None, "ETH"), send=True, confirm=agents.yes)
        assert closed.kind is OutcomeKind.DONE, closed.reason
        assert position_size(server, anvil_chain, "ETH") == 0
        assert posted(server) == 1
        [intent] = closed.transactions
        assert intent.receipt is not None
        assert [fill.size_raw for fill in intent.receipt.fills] == [-20]


def test_vault_deposit__is_a_transfer_and_an_unknown_row_is_unsure(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path
) -> None:
    owner = anvil_chain.wallet.address.lower()
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        before = margin_account(agent.step_input().snapshot)
        server.wallet(owner).usd -= 500
        server.transfers.append({"user": owner, "time": server.now_ms, "delta": {"type": "vaultDeposit", "vault": owner, "usdc": "500"}})
        account = margin_account(agent.step_input().snapshot)
        assert before is not None
        assert account is not None
        assert account.collateral_raw == before.collateral_raw - 500 * 10**6
        assert account.realised_raw == before.realised_raw
        server.wallet(owner).usd += 9
        server.transfers.append({"user": owner, "time": server.now_ms, "delta": {"type": "airdrop", "usdc": "9"}})
        outcome = agent.rebalance(send=False)
        assert "(airdrop)" in outcome.reason
        assert "uncertain" in outcome.reason
        facts = RunFacts(paused=False, heartbeat_fault="", low_gas_wei=None)
        [alert] = [alert for alert in cycle_alerts(outcome, facts) if alert.key == "futures:books"]
        assert alert.kind is AlertKind.REVIEW
        assert alert.is_lasting
        refresh_ledger(agent)
        assert "airdrop" in api.pnl(agent.context.loaded_config)["uncertain"]
