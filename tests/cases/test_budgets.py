"""Budgets and schedules over several steps of chain time: cooldown, turnover and loss of a day, reviews; the store remembers them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from agent.app.agent import Agent
from agent.app.documents.status import status_document
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.guards.case import build_guard_case
from agent.localchain import LocalChain
from tests.support.agents import (
    ROOMY,
    USD,
    agent_on,
    explain_balances,
    fund,
    loss_usd,
    purse,
    reopened_agent,
    skipped_text,
    swap_of,
    trusted_config,
    yes,
)
from tests.support.constants import DAY_S
from tests.support.plans import evidence
from tests.support.text import causes, mentions

TARGETS = {"WETH": "50%", "USDC": "50%"}
UP = {"WETH": 55_000, "USDC": 35_000}
DOWN = {"WETH": 35_000, "USDC": 55_000}


def step(chain: LocalChain, agent: Agent, holdings: dict[str, int]) -> StepOutcome:
    """The owner changed the holdings, and said so; then one step."""
    fund(chain, holdings)
    explain_balances(agent)
    return agent.rebalance(send=True, confirm=yes)


def test_second_drift_in_the_cooldown__waits_for_its_end(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, ROOMY | {"policy.cooldown": "1h"}, TARGETS) as agent:
        swap_of(step(chain, agent, UP))
        outcome = step(chain, agent, DOWN)
        assert outcome.kind is OutcomeKind.HOLD
        assert causes(outcome) == ("policy.cooldown",)
        chain.warp(3_000)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        chain.warp(601)
        swap_of(agent.rebalance(send=True, confirm=yes))


def test_day_s_turnover__is_shared_and_back_after_24_hours(chain: LocalChain, tmp_path: Path) -> None:
    day = Fraction(15, 100) * 90_000
    with agent_on(chain, tmp_path, ROOMY | {"limits.daily_turnover": "15%"}, TARGETS) as agent:
        first, _, _ = swap_of(step(chain, agent, UP))
        second_outcome = step(chain, agent, DOWN)
        second, _, _ = swap_of(second_outcome)
        assert "limits.daily_turnover" in skipped_text(second.skipped)
        assert first.turnover + second.turnover <= day * USD
        assert first.turnover + second.turnover > (day - 50) * USD
        third = step(chain, agent, UP)
        assert third.kind is OutcomeKind.REFUSED
        assert "daily_turnover" in third.reason
        assert third.transactions == ()
        chain.warp(DAY_S + 1)
        swap_of(agent.rebalance(send=True, confirm=yes))


def test_day_s_loss__bounds_the_worst_case_of_each_trade(chain: LocalChain, tmp_path: Path) -> None:
    """Each step costs about 6 dollars and may cost 36; 6 bps of 90,000 are 54: what was lost is what the wallet shows."""
    prices = dict(chain.deployed_world.prices_usd)
    with agent_on(chain, tmp_path, ROOMY | {"limits.daily_loss": "6bps"}, TARGETS) as agent:
        total = Fraction(0)
        moved = []
        for number in range(7):
            fund(chain, UP if number % 2 == 0 else DOWN)
            explain_balances(agent)
            before = purse(chain)
            outcome = agent.rebalance(send=True, confirm=yes)
            plan, _, _ = swap_of(outcome)
            judged = build_guard_case(outcome.step_input, plan, evidence(outcome.step_input, plan))
            assert outcome.step_input.history.budgets.loss_24h + judged.worst_cost() <= 54 * USD * Fraction(101, 100)
            moved.append(plan.turnover)
            total += loss_usd(chain, before, prices)
            assert outcome.input_after is not None
            assert abs(outcome.input_after.history.budgets.loss_24h / USD - total) < Fraction(1, 100)
        assert total <= 54
        assert "part 1" in outcome.reason
        assert moved[-1] < moved[0] * Fraction(4, 5), "what may still be lost today decides how much goes"
        chain.warp(DAY_S + 1)
        whole, _, _ = swap_of(step(chain, agent, UP))
        assert whole.turnover > moved[0] * Fraction(99, 100), "a new day has room for all of it"


def test_plan_beyond_the_day_s_loss__goes_in_part(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """It costs about 6 dollars; its minimums would take 506 of the 450 that half a percent of 90,000 allows."""
    wide = ROOMY | {"limits.slippage": "5%", "limits.daily_loss": "0.5%"}
    with agent_on(anvil_chain, tmp_path, wide, TARGETS) as agent:
        outcome = step(anvil_chain, agent, UP)
        plan, _, _ = swap_of(outcome)
        worst = build_guard_case(outcome.step_input, plan, evidence(outcome.step_input, plan)).worst_cost()
        assert 400 * USD < worst <= 450 * USD
        assert mentions(outcome.reason, "part 1", "2")
        assert 'limits.daily_loss = "0.6%"' in outcome.reason


def test_budgets_outlive_the_process(chain: LocalChain, tmp_path: Path) -> None:
    loaded = trusted_config(chain, tmp_path, ROOMY | {"limits.daily_turnover": "15%"}, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        plan, _, _ = swap_of(step(chain, agent, UP))
    with reopened_agent(chain, loaded) as agent:
        history = agent.rebalance().step_input.history
        assert history.budgets.turnover_24h > plan.turnover * Fraction(999, 1000)
        assert history.budgets.gas_24h_wei > 0
        assert history.budgets.loss_24h > 0
        assert history.reviews.last_rebalance_s is not None


def test_a_schedule_reviews_when_it_is_due_and_not_before(chain: LocalChain, tmp_path: Path) -> None:
    timed = {"policy.trigger": {"kind": "time", "every": "1d"}}
    with agent_on(chain, tmp_path, ROOMY | timed, TARGETS) as agent:
        swap_of(step(chain, agent, UP))
        waits = step(chain, agent, DOWN)
        assert waits.kind is OutcomeKind.HOLD
        assert changes_of_a_day(agent) == {"WETH": None, "USDC": None}
        chain.warp(DAY_S)
        swap_of(agent.rebalance(send=True, confirm=yes))
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(11, 10)})
        assert changes_of_a_day(agent) == {"WETH": 1_000, "USDC": 0}
        chain.warp(DAY_S)
        chain.warp(DAY_S)
        assert changes_of_a_day(agent) == {"WETH": None, "USDC": None}, "no valuation of 24 h ago"


def changes_of_a_day(agent: Agent) -> dict[str, int | None]:
    """The change of each price in 24 h, in bps, as the status states it."""
    return {holding["symbol"]: holding["day_bps"] for holding in status_document(agent.status())["holdings"]}


def test_hybrid_trigger__looks_on_schedule_and_acts_beyond_the_band(chain: LocalChain, tmp_path: Path) -> None:
    hybrid = {"policy.trigger": {"kind": "hybrid", "every": "1d", "relative": "10%"}}
    with agent_on(chain, tmp_path, ROOMY | hybrid, TARGETS) as agent:
        assert step(chain, agent, {"WETH": 46_000, "USDC": 44_000}).kind is OutcomeKind.HOLD
        assert step(chain, agent, UP).kind is OutcomeKind.HOLD
        chain.warp(DAY_S)
        swap_of(agent.rebalance(send=True, confirm=yes))


def test_halfway_or_edge_destination__goes_no_further(chain: LocalChain, tmp_path: Path) -> None:
    ends = {}
    for destination in ("halfway", "band"):
        mark = chain.snapshot()
        with agent_on(chain, tmp_path / destination, ROOMY | {"policy.destination": destination}, TARGETS) as agent:
            outcome = step(chain, agent, {"WETH": 51_300, "USDC": 38_700})
            swap_of(outcome)
            assert outcome.input_after is not None
            ends[destination] = agent.weights_at(outcome.input_after)["WETH"]
            assert agent.rebalance().kind is OutcomeKind.HOLD
        chain.revert(mark)
    assert abs(ends["halfway"] - 5_350) <= 1
    assert 5_498 <= ends["band"] <= 5_500
