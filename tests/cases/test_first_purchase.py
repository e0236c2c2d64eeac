"""The first purchase, a top-up and a withdrawal are no drift: limits of turnover leave what the owner confirmed alone, and no more."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.app.documents.past import step_history
from agent.app.money import transfers
from agent.execution.step_context import OutcomeKind
from agent.guards.case import build_guard_case
from agent.localchain import LocalChain
from agent.model import Hold, PurchaseKind
from agent.planning.partial_plans import DAILY_LOSS_LIMIT
from tests.support.agents import (
    USD,
    agent_on,
    explain_balances,
    fund,
    purse,
    reopened_agent,
    require_rebalance,
    skipped_text,
    swap_of,
    trusted_config,
    yes,
)
from tests.support.on_chain.first_purchases import look
from tests.support.plans import evidence
from tests.support.text import mentions

TARGETS = {"WETH": "50%", "WBTC": "30%", "USDC": "20%"}
TARGETS_BPS = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
BUYS = {"limits.first_purchase": "10m", "portfolio.max_live_value": "10000000"}


def weights_bps(agent: Agent) -> dict[str, int]:
    return {drift.symbol: drift.weight_bps for drift in agent.status().decision_result.drifts}


def require_weights(agent: Agent, within_bps: int) -> None:
    assert weights_bps(agent) == {symbol: pytest.approx(bps, abs=within_bps) for symbol, bps in TARGETS_BPS.items()}


def end_reason(agent: Agent) -> str:
    """Return why the newest purchase ended; empty while it is open."""
    return agent.context.store.executions.purchases()[0].why


def test_ten_thousand_dollars__are_invested_by_one_transaction(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"USDC": 10_000})
    with agent_on(chain, tmp_path, BUYS, TARGETS) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        plan, _, _ = swap_of(outcome)
        assert plan.turnover > 7_900 * USD, "within the 30 % of limits.turnover it was 3,000"
        sentences = step_history.explain(tmp_path / "trimtab.toml", outcome.step_id)["sentences"]
        assert "WETH: 0 USDC, 0.00 % against 50 %, outside." in sentences, "no band bounds a first purchase"
        require_weights(agent, within_bps=30)
        history = agent.step_input().history
        assert not history.layers
        assert history.budgets.turnover_24h < 100 * USD, "the budget of drift is untouched"
        chain.warp(3_700)
        fund(chain, {"WETH": 6_500, "WBTC": 1_500, "USDC": 2_000})
        explain_balances(agent)
        drift, _, _ = swap_of(agent.rebalance(send=True, confirm=yes))
        assert not drift.decision.exempt_turnover
        assert drift.turnover <= 3_000 * USD


def test_purchase_beyond_the_pools__goes_in_equal_parts(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"USDC": 2_000_000})
    loaded = trusted_config(chain, tmp_path, BUYS | {"limits.price_impact": "25bps"}, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        first = look(agent)
        swap_of(first)
        chosen_weights = weights_bps(agent)
        assert chosen_weights["WBTC"] > 100, chosen_weights
        assert chosen_weights["WETH"] > 100, chosen_weights
        assert abs(chosen_weights["WETH"] * 3 - chosen_weights["WBTC"] * 5) < 400, chosen_weights
        assert mentions(first.reason, "first purchase", "part 1")
    with reopened_agent(chain, loaded) as agent:  # another process: what is left is in the store
        under = agent.step_input().history.cash_flows.purchase
        assert under is not None
        assert under.parts_done == 1
        assert under.terms.kind is PurchaseKind.FIRST
        waits = agent.plan()
        assert waits.kind is OutcomeKind.HOLD
        assert "part 2 of" in waits.reason
        assert "next at" in waits.reason
        for _ in range(under.terms.part_count + 2):
            chain.move_market(dict(chain.deployed_world.prices_usd))
            chain.warp(601)
            outcome = look(agent)
            if outcome.kind is not OutcomeKind.DONE:
                break
        assert "done in" in end_reason(agent), "the last part ends it, without another cycle"
        require_weights(agent, within_bps=60)


@pytest.mark.slow
@pytest.mark.parametrize("hours", [6, 3])
def test_a_purchase_beyond_daily_loss_completes_in_three_days(chain: LocalChain, tmp_path: Path, hours: int) -> None:
    """Its worst case is two and a half times limits.daily_loss: each part fits in what the day has left, and the rest follows."""
    tight = BUYS | {"limits.slippage": "2bps"}
    fund(chain, {"USDC": 100_000})
    with agent_on(chain, tmp_path / "whole", tight, TARGETS) as agent:
        at_once = agent.plan()
        assert at_once.plan is not None, at_once.reason
        assert at_once.plan.turnover > 79_000 * USD, at_once.reason
        worst = build_guard_case(at_once.step_input, at_once.plan, evidence(at_once.step_input, at_once.plan)).worst_cost()
    limit = worst / (100_000 * USD) / Fraction(5, 2)
    loaded = trusted_config(chain, tmp_path, tight | {"limits.daily_loss": f"{int(limit * 10_000)}bps"}, TARGETS)
    began_s = chain.clock.now_s()
    parts = 0
    waited = 0
    for _ in range(3 * 24 // hours):
        with reopened_agent(chain, loaded) as agent:  # each look in a process of its own
            outcome = look(agent)
            if outcome.kind is OutcomeKind.DONE:
                plan, _, _ = swap_of(outcome)
                parts += 1
                judged = build_guard_case(outcome.step_input, plan, evidence(outcome.step_input, plan))
                assert (
                    outcome.step_input.history.budgets.loss_24h + judged.worst_cost()
                    <= judged.portfolio_value() * int(limit * 10_000) / 10_000
                )
                assert parts > 1 or ("part 1 of " in outcome.reason and 'limits.daily_loss = "' in outcome.reason), outcome.reason
            decision = outcome.decision_result.decision
            waited += isinstance(decision, Hold) and decision.limiting_rule == DAILY_LOSS_LIMIT
            assert outcome.kind in (OutcomeKind.DONE, OutcomeKind.HOLD), outcome.reason
            if why := end_reason(agent):
                break
        chain.move_market(dict(chain.deployed_world.prices_usd))
        chain.warp(hours * 3_600 + 1)
    assert "done in" in why, (why, parts, waited)
    assert parts >= 3, (why, parts, waited)
    assert waited, (why, parts, waited)
    assert chain.clock.now_s() - began_s <= 3 * 86_400
    with reopened_agent(chain, loaded) as agent:
        require_weights(agent, within_bps=60)


def test_top_up_beyond_turnover_limits__is_invested_whole(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000})
    with agent_on(chain, tmp_path, BUYS, TARGETS) as agent:
        agent.status()
        transfers.invest(agent, send=True, confirm=lambda _: True)
        balances = purse(chain)
        chain.set_balance("USDC", balances.raw["USDC"] + 20_000 * USD)
        done = transfers.invest(agent, send=True, confirm=lambda _: True)
        assert done.outcome is not None, done.outcome
        assert done.outcome.kind is OutcomeKind.DONE, done.outcome
        assert done.is_recorded, done.outcome
        assert done.outcome.plan is not None, skipped_text(done.outcome.plan.skipped)
        assert done.outcome.plan.turnover > 15_000 * USD, skipped_text(done.outcome.plan.skipped)
        assert agent.step_input().history.budgets.turnover_24h < 300 * USD
        assert done.open_top_up is None
        assert agent.step_input().history.cash_flows.purchase is None, "done is said of the whole alone"


def test_top_up_beyond_the_pools__names_its_parts_and_goes_on(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000})
    loaded = trusted_config(chain, tmp_path, BUYS | {"limits.price_impact": "25bps"}, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        agent.status()
        transfers.invest(agent, send=True, confirm=lambda _: True)
        chain.set_balance("USDC", purse(chain).raw["USDC"] + 2_000_000 * USD)
        part = transfers.invest(agent, send=True, confirm=lambda _: True)
        assert part.is_recorded, part.outcome
        assert part.open_top_up is not None, part.outcome
        assert part.open_top_up.parts_done == 1, part.outcome
        assert part.open_top_up.terms.part_count > 1, part.outcome
        assert part.open_top_up.terms.kind is PurchaseKind.TOP_UP
    with reopened_agent(chain, loaded) as agent:
        chain.set_balance("USDC", purse(chain).raw["USDC"] + 1_000 * USD)
        more = transfers.invest(agent, send=True, confirm=lambda _: True)
        assert more.open_top_up is not None
        assert dict(more.open_top_up.terms.deposits)[chain.tokens["USDC"].address] > 1_000 * USD
        for _ in range(more.open_top_up.terms.part_count + 3):
            chain.move_market(dict(chain.deployed_world.prices_usd))
            chain.warp(601)
            if look(agent).kind is not OutcomeKind.DONE:
                break
        assert "done in" in end_reason(agent), "the last part ends it, without another cycle"
        require_weights(agent, within_bps=80)


@pytest.mark.slow
def test_two_deposits_crash_and_stop__beside_an_open_top_up(chain: LocalChain, tmp_path: Path) -> None:
    """Gas makes the rest of a top-up too dear: the command returns, the rest is drift, and the stop loss of a crash sells."""
    fund(chain, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000})
    changes = BUYS | {"limits.price_impact": "25bps", "policy.cooldown": "0s", "portfolio.assets.1.stop_loss": "20%"}
    with reopened_agent(chain, trusted_config(chain, tmp_path, changes, TARGETS)) as agent:
        look(agent)
        for dollars in (2_000_000, 1_000):
            chain.set_balance("USDC", purse(chain).raw["USDC"] + dollars * USD)
            assert transfers.invest(agent, send=True, confirm=lambda _: True).open_top_up is not None
    with reopened_agent(chain, trusted_config(chain, tmp_path, changes | {"limits.plan_cost": "1bps"}, TARGETS)) as agent:
        chain.warp(601)
        ended = require_rebalance(agent, OutcomeKind.HOLD)
        assert "the rest is not worth its cost" in ended.reason, ended.reason
        assert agent.step_input().history.cash_flows.purchase is None
    with reopened_agent(chain, trusted_config(chain, tmp_path, changes, TARGETS)) as agent:
        chain.move_market({"WBTC": chain.deployed_world.prices_usd["WBTC"] * Fraction(7, 10)})
        chain.warp(60)
        fired = look(agent)
        assert mentions(fired.reason, "exits sold", "WBTC"), fired.reason


def test_a_sale_for_a_withdrawal_leaves_the_turnover_of_the_day(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000})
    with agent_on(chain, tmp_path, BUYS, TARGETS) as agent:
        agent.status()
        paid = transfers.withdraw(agent, transfers.WithdrawalRequest("5000"), send=True, confirm=lambda _: True)
        assert paid.state == "reserved", paid.reason
        assert agent.step_input().history.budgets.turnover_24h < 100 * USD, "what is sold for a payout is no drift"


def test_a_gift_after_the_first_purchase_frees_no_turnover(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"USDC": 10_000})
    with agent_on(chain, tmp_path, BUYS | {"limits.balance_jump": "off", "policy.cooldown": "0s"}, TARGETS) as agent:
        swap_of(agent.rebalance(send=True, confirm=yes))
        chain.set_balance("USDC", purse(chain).raw["USDC"] + 20_000 * USD)
        plan, _, _ = swap_of(agent.rebalance(send=True, confirm=yes))
        assert plan.turnover <= Fraction(30, 100) * 30_100 * USD
        assert "limits.turnover" in skipped_text(plan.skipped)
