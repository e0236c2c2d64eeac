"""Whole steps that open, reduce and hold futures, with the deployed contracts and the real signer."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from agent.execution.step_context import OutcomeKind
from agent.layers.futures.state import FuturesState, planned_futures
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.model import AdjustFutures, IntentKind, IntentState
from agent.ports.perpetuals import futures_grant
from tests.support import agents
from tests.support.agents import require_rebalance
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perpetuals.chain_orders import TWO, crash, open_by_hand, orders_of, perps
from tests.support.perps import WAD, advance_time, read_now

__all__ = ["perps"]


def test_a_step_opens_to_its_targets_one_transaction_each(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    with agents.agent_on(chain, tmp_path, futures_config_changes(perps, TWO), EVEN) as agent:
        outcome = require_rebalance(agent)
        assert orders_of(outcome) == [IntentKind.FUTURES] * 2, outcome.reason
        margin_account = read_now(perps, chain.wallet.address)
        gross = margin.gross_notional_raw(margin_account)
        value = margin.account_value_raw(margin_account)
        assert Fraction(19, 10) < Fraction(gross, value) < Fraction(21, 10)
        sizes = {market.symbol: margin_account.size_raw(market.market) for market in margin_account.markets}
        assert sizes["WETH"] > 0 > sizes["WBTC"]
        for intent in outcome.transactions:
            assert intent.state in (IntentState.MINED, IntentState.FINAL)
            granted = futures_grant(agent.context.store.journal.grant(intent.id))
            assert granted is not None
            assert intent.receipt is not None
            [fill] = intent.receipt.fills
            assert (fill.market, fill.size_raw) == (granted.action.market, granted.action.size_raw)
        history = agent.context.store.budgets.history(chain.now_s())
        assert history.budgets.turnover_24h == 0 == history.layer(FuturesState).reduced_notional_24h
        assert 0 < history.budgets.loss_24h < 200 * agents.USD, "fees, slippage and gas are booked"
        assert agent.context.store.journal.unbooked_intents() == ()
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert (again.kind, again.transactions) == (OutcomeKind.HOLD, ()), again.reason


def test_a_dry_run_shows_the_orders_and_sends_nothing(perps: LocalPerps, tmp_path: Path) -> None:
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, TWO), EVEN) as agent:
        before = agents.purse(perps.chain)
        outcome = agent.rebalance(send=False)
        assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
        assert isinstance(outcome.decision, AdjustFutures)
        assert outcome.plan is not None
        assert planned_futures(outcome.plan) is not None
        assert len(planned_futures(outcome.plan).orders) == 2
        assert {verdict.guard for verdict in outcome.plan.verdicts} >= {"futures_state", "index_age", "basis", "reduction_per_day"}
        assert agents.purse(perps.chain) == before
        assert read_now(perps, perps.chain.wallet.address).positions == ()


def test_a_step_reduces_after_a_crash_to_below_its_limit(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    wallet = perps.chain.wallet.address
    price = chain.deployed_world.prices_usd["WETH"]
    open_by_hand(perps, {"WETH": int(Fraction(27_000, 1) / price * WAD)})
    crash(perps, "WETH", Fraction(12, 100))
    before = read_now(perps, wallet)
    was = margin.leverage(before)
    assert was is not None
    assert was > 3
    with agents.agent_on(chain, tmp_path, futures_config_changes(perps, {"WETH": "100%"}), EVEN) as agent:
        outcome = require_rebalance(agent)
        assert orders_of(outcome), outcome.reason
        margin_account = read_now(perps, wallet)
        now = margin.leverage(margin_account)
        assert now is not None, outcome.reason
        assert now <= 3, outcome.reason
        assert 0 < margin_account.size_raw(perps.markets["WETH"].base_token) < before.size_raw(perps.markets["WETH"].base_token)
        history = agent.context.store.budgets.history(chain.now_s())
        assert history.layer(FuturesState).reduced_notional_24h > 0 == history.budgets.turnover_24h


def test_a_stale_index_trades_nothing_and_says_why(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    with agents.agent_on(chain, tmp_path, futures_config_changes(perps, TWO, index_age="1m"), EVEN) as agent:
        chain.node.mine_at(chain.now_s() + 120)
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (outcome.kind, outcome.transactions) == (OutcomeKind.HOLD, ()), outcome.reason
        assert "futures: no order, the index of WETH is" in outcome.reason
    advance_time(perps, 60)


def test_a_declined_plan_changes_no_position(perps: LocalPerps, tmp_path: Path) -> None:
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, TWO), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=lambda _: False)
        assert (outcome.kind, outcome.transactions) == (OutcomeKind.DECLINED, ())
        assert read_now(perps, perps.chain.wallet.address).positions == ()


def test_a_reduction_cuts_every_position_by_the_same_share(perps: LocalPerps, tmp_path: Path) -> None:
    """Orders go one by one: once the first is filled the limit may hold again, and the others are cut all the same."""
    chain = perps.chain
    wallet = perps.chain.wallet.address
    prices = chain.deployed_world.prices_usd
    open_by_hand(perps, {"WETH": int(Fraction(19_000) / prices["WETH"] * WAD), "WBTC": -int(Fraction(12_500) / prices["WBTC"] * WAD)})
    before = read_now(perps, wallet)
    with agents.agent_on(chain, tmp_path, futures_config_changes(perps, TWO), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert orders_of(outcome) == [IntentKind.FUTURES] * 2, outcome.reason
        after = read_now(perps, wallet)
        shares = [Fraction(after.size_raw(market.market), before.size_raw(market.market)) for market in before.markets]
        assert abs(shares[0] - shares[1]) < Fraction(1, 1_000)
        leverage = margin.leverage(after)
        assert leverage is not None
        assert leverage <= Fraction(29, 10), "the hysteresis is reached"
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert (again.kind, again.transactions) == (OutcomeKind.HOLD, ()), again.reason
