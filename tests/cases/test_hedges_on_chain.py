"""Hedges on the real contracts: opened instead of a taxed sale, and closed by each rule."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.app import Agent
from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.positions.futures import deleverage, hedge
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.execution.cycle import hedge_comparisons_of
from agent.layers.futures.state import FuturesConfig, FuturesState, margin_account, planned_futures
from agent.localchain.perpetuals import LocalPerps
from agent.model import IntentKind
from agent.policy.decide import current_drifts
from tests.support import agents
from tests.support.agents import require_rebalance
from tests.support.constants import DAY_S
from tests.support.futures import EVEN, futures_table
from tests.support.perps import advance_time, read_now

TAXED = {"horizon": "30d", "min_saving": "0.5%", "tax_rate": "25%", "capital_cost": "4%"}


@pytest.fixture
def perps(perps_chain: LocalPerps) -> LocalPerps:
    """A wallet on its spot targets, with 20,000 of margin."""
    agents.fund(perps_chain.chain, {"WETH": 70_000, "USDC": 50_000})
    perps_chain.deposit(perps_chain.chain.wallet.address, 20_000 * 10**6)
    return perps_chain


def changes(perps: LocalPerps, max_top_up_per_day: str = "0%", **hedge: str) -> dict[str, object]:
    """[futures] that only hedges WETH."""
    table = futures_table(perps, {"WETH": "0%"}, "0x", max_top_up_per_day=max_top_up_per_day)
    table["markets"][0]["asset"] = "WETH"
    return {
        **agents.ROOMY,
        "portfolio.max_live_value": "1000000",
        "tax": {"method": "fifo", "year_limit": "off"},
        "futures": table | {"hedge": TAXED | hedge},
    }


def rise(perps: LocalPerps, share: Fraction) -> None:
    """WETH rises by this share: index, virtual pool, pools and feeds."""
    chain = perps.chain
    price = chain.deployed_world.prices_usd["WETH"] * (1 + share)
    chain.move_market({"WETH": price})
    perps.set_index("WETH", price)
    perps.move_pools({"WETH": price}, lambda seconds: chain.node.mine_at(chain.now_s() + int(seconds) + 1))
    advance_time(perps, 1_000)
    chain.refresh_feeds()


def short_raw(perps: LocalPerps) -> int:
    return read_now(perps, perps.chain.wallet.address).size_raw(perps.markets["WETH"].base_token)


def by_hand(agent: Agent, ratio: str, *, close: bool = False, send: bool = False) -> StepOutcome:
    """`trimtab hedge WETH`."""
    return hedge(agent, "WETH", ratio, close=close, send=send, confirm=agents.yes, progress=lambda _: None)


def hedged(agent: Agent, perps: LocalPerps) -> None:
    """The agent knows its lots, WETH rises by half, and the agent rebalances."""
    assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.HOLD
    rise(perps, Fraction(1, 2))
    outcome = require_rebalance(agent)
    kinds = [intent.kind for intent in outcome.transactions if intent.kind is not IntentKind.APPROVE]
    assert kinds == [IntentKind.FUTURES, IntentKind.SWAP], outcome.reason
    (hedge_comparison,) = hedge_comparisons_of(outcome)
    assert hedge_comparison.is_hedged
    assert hedge_comparison.sale_tax > 0
    texts = [alert.text for alert in cycle_alerts(outcome, RunFacts(False, "", None))]
    assert any("to sell, of which" in text and "it is shorted" in text for text in texts), texts


def test_a_taxed_overweight_is_hedged_and_the_rest_sold(perps: LocalPerps, tmp_path: Path) -> None:
    with agents.agent_on(perps.chain, tmp_path, changes(perps), EVEN) as agent:
        hedged(agent, perps)
        (hedge,) = agent.context.store.budgets.history(perps.chain.now_s()).layer(FuturesState).hedges
        assert hedge.size_raw == short_raw(perps) < 0
        step = agent.rebalance(send=False).step_input
        weth, usdc = current_drifts(step)
        assert dict(step.config(FuturesConfig).targets_before_hedges_bps) == {weth.token: 5_000, usdc.token: 5_000}
        total, short = weth.value + usdc.value, -hedge.size_raw * margin_account(step.snapshot).markets[0].index / 10**12  # type: ignore[union-attr]
        assert abs((weth.value - short) / total - Fraction(1, 2)) < Fraction(2, 100), "net of its hedge WETH is at its target"
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert (again.kind, again.transactions) == (OutcomeKind.HOLD, ()), again.reason
        rise(perps, Fraction(-35, 100))
        back = require_rebalance(agent)
        assert "buy" in back.transactions[0].note
        assert back.transactions[0].kind is IntentKind.FUTURES, "the hedge first, then spot"
        assert short_raw(perps) == 0
        assert agent.context.store.budgets.history(perps.chain.now_s()).layer(FuturesState).hedges[0].size_raw == 0


def test_tracking__overweight_is_hedged_and_its_rest_sold_to_edge(perps: LocalPerps, tmp_path: Path) -> None:
    """Both as far as the rule's plan goes; then it holds, with the hedge open."""
    tracking = {"policy.trigger": {"kind": "tracking"}, "policy.destination": "zone"}
    with agents.agent_on(perps.chain, tmp_path, changes(perps) | tracking, EVEN) as agent:
        hedged(agent, perps)
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert (again.kind, again.transactions) == (OutcomeKind.HOLD, ()), again.reason
        assert short_raw(perps) < 0


def test_missing_margin_is_deposited_before_the_hedge(perps_chain: LocalPerps, tmp_path: Path) -> None:
    perps = perps_chain
    chain = perps_chain.chain
    agents.fund(chain, {"WETH": 70_000, "USDC": 69_500})
    perps.deposit(chain.wallet.address, 500 * 10**6)
    with agents.agent_on(chain, tmp_path, changes(perps, max_top_up_per_day="off"), EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.HOLD
        rise(perps, Fraction(1, 2))
        outcome = require_rebalance(agent)
        kinds = [intent.kind for intent in outcome.transactions if intent.kind is not IntentKind.APPROVE]
        assert kinds == [IntentKind.FUTURES, IntentKind.FUTURES, IntentKind.SWAP], outcome.reason
        assert short_raw(perps) < 0
        assert read_now(perps, chain.wallet.address).collateral_raw > 2_000 * 10**18


@pytest.mark.slow
def test_funding_that_outweighs_the_sale_ends_a_hedge(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    with agents.agent_on(chain, tmp_path, changes(perps), EVEN) as agent:
        hedged(agent, perps)
        above = chain.deployed_world.prices_usd["WETH"] * Fraction(102, 100)
        for _ in range(2):  # the index stays 2 % above the mark for its whole TWAP, so that shorts pay 2 % a day
            perps.set_index("WETH", above)
            chain.node.mine_at(chain.now_s() + 1_000)
        perps.set_index("WETH", above)
        chain.refresh_feeds()
        planned = agent.rebalance(send=False)
        assert "its funding exceeds the cost of the sale" in planned.reason, planned.reason
        agent.rebalance(send=True, confirm=agents.yes)
        assert short_raw(perps) == 0


def test_a_margin_account_that_runs_short_ends_its_hedge(perps_chain: LocalPerps, tmp_path: Path) -> None:
    perps = perps_chain
    chain = perps_chain.chain
    agents.fund(chain, {"WETH": 70_000, "USDC": 66_500})
    perps.deposit(chain.wallet.address, 3_500 * 10**6)
    with agents.agent_on(chain, tmp_path, changes(perps), EVEN) as agent:
        hedged(agent, perps)
        rise(perps, Fraction(12, 100))
        planned = agent.rebalance(send=False)
        assert planned.plan is not None, planned.reason
        assert planned_futures(planned.plan) is not None, planned.reason
        assert "close a hedge first" in planned_futures(planned.plan).reason, planned.reason
        agent.rebalance(send=True, confirm=agents.yes)
        assert short_raw(perps) == 0


def test_a_hedge_ends_at_its_horizon_and_the_asset_is_sold(perps: LocalPerps, tmp_path: Path) -> None:
    with agents.agent_on(perps.chain, tmp_path, changes(perps, horizon="2d"), EVEN) as agent:
        hedged(agent, perps)
        advance_time(perps, 2 * DAY_S)
        perps.chain.warp(3_000)
        advance_time(perps, 60)
        ended = agent.rebalance(send=True, confirm=agents.yes)
        assert short_raw(perps) == 0, ended.reason
        rest = agent.rebalance(send=True, confirm=agents.yes)
        assert not [transaction for transaction in rest.transactions if transaction.kind is IntentKind.FUTURES], rest.reason


def test_the_owner_opens_and_closes_a_hedge(perps: LocalPerps, tmp_path: Path) -> None:
    with agents.agent_on(perps.chain, tmp_path, changes(perps), EVEN) as agent:
        agent.rebalance(send=True, confirm=agents.yes)
        rise(perps, Fraction(1, 2))
        assert by_hand(agent, "25%").kind is OutcomeKind.PLANNED
        assert short_raw(perps) == 0, "a dry run sends nothing"
        opened = by_hand(agent, "25%", send=True)
        assert opened.kind is OutcomeKind.DONE, opened.reason
        assert short_raw(perps) < 0, opened.reason
        closed = by_hand(agent, "", close=True, send=True)
        assert closed.kind is OutcomeKind.DONE, closed.reason
        assert short_raw(perps) == 0, closed.reason


def recorded_raw(agent: Agent, perps: LocalPerps) -> int:
    """Size of the hedge in the store."""
    (hedge,) = agent.context.store.budgets.history(perps.chain.now_s()).layer(FuturesState).hedges
    return hedge.size_raw


def test_record_and_position_agree_after_each_deleverage(perps: LocalPerps, tmp_path: Path) -> None:
    with agents.agent_on(perps.chain, tmp_path, changes(perps), EVEN) as agent:
        hedged(agent, perps)
        whole = short_raw(perps)
        for leverage, market in (("0.1x", None), (None, "WETH")):
            reduced = deleverage(agent, leverage, market, send=True, confirm=agents.yes, progress=lambda _: None)
            assert reduced.kind is OutcomeKind.DONE, reduced.reason
            assert whole < short_raw(perps) == recorded_raw(agent, perps) <= 0
        assert short_raw(perps) == 0


@pytest.mark.slow
def test_hedge_without_a_target__is_closed_at_the_next_step(perps: LocalPerps, tmp_path: Path) -> None:
    with agents.agent_on(perps.chain, tmp_path, changes(perps), EVEN) as agent:
        hedged(agent, perps)
    with agents.agent_on(perps.chain, tmp_path, changes(perps), {"WETH": "0%", "USDC": "100%"}) as agent:
        closed = agent.rebalance(send=True, confirm=agents.yes)
        assert short_raw(perps) == 0 == recorded_raw(agent, perps), closed.reason
