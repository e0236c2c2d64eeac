"""What is not worth its cost is a hold with the reason; a market that refuses stays a refusal."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.app import describe
from agent.app.alerting import RunFacts
from agent.app.alerting import cycle_alerts as alerts
from agent.cli.options import PrintStyle
from agent.cli.portfolio import show_outcome
from agent.errors import EXIT_OK, OUTCOME_EXIT_CODES, Refused
from agent.execution import evaluation
from agent.execution.step_context import REVIEW_DONE_KINDS, OutcomeKind
from agent.model import AlertKind, Every, Hold, StepInput, Threshold
from agent.planning import planner, proposals
from agent.planning.cost_reasons import cost_reason
from agent.planning.problem import build_problem
from agent.policy.minimum import APPROVAL_GAS, LEG_GAS
from agent.reference import reference_prices
from tests.support.builders import GWEI, step_input, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.planning_worlds import DEEP, USDC, WBTC, WETH, rebalance_to_targets, two, without_gas

HOUR_S = 3_600


def small_drift_step(weth: int = 5_030, gwei: int = 10, **limits: object) -> StepInput:
    """A weekly schedule that is due, with a drift of 30 dollars whose gas costs dollars."""
    step = with_limits(two(weth, 10_000 - weth, [v2_pool(WETH, USDC, 2_000, DEEP)]), **limits)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=gwei * GWEI))
    return replace(step, policy=replace(step.policy, trigger=Every(7 * 24 * HOUR_S)))


def test_small_drift_under_a_schedule_is_a_reviewed_hold() -> None:
    outcome = evaluation.evaluate_input(small_drift_step(min_trade=None), proposals.propose_rebalance, None)
    assert outcome.kind is OutcomeKind.HOLD, outcome.reason
    assert isinstance(outcome.decision, Hold)
    assert outcome.decision.limiting_rule == "limits.plan_cost"
    assert "limits.plan_cost 50 bps): WETH 30 USDC off target: plan_cost allows 0.15; " in outcome.reason
    assert outcome.decision_result.is_reviewed
    assert outcome.decision_result.due_schedules
    assert outcome.kind in REVIEW_DONE_KINDS
    assert not outcome.refusal_verdicts


def test_hold_shows_the_cost_of_each_asset_beside_the_limit() -> None:
    """At 10 gwei and 2,000 dollars a swap is 3 dollars of gas, an approval 0.92; WBTC is bought by way of WETH."""
    pools = [v2_pool(WETH, USDC, 2_000, DEEP), v3_pool(WBTC, WETH, 30, DEEP, 3_000)]
    step = step_input({"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, {"WETH": 1_000, "WBTC": 0, "USDC": 2_000}, pools=pools)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=10 * GWEI), priority_fee_wei=0)
    outcome = evaluation.evaluate_input(with_limits(step, plan_cost_bps=50), proposals.propose_rebalance, None)
    assert outcome.kind is OutcomeKind.HOLD
    *_, weth, wbtc = outcome.reason.split("off target: ")
    assert weth.startswith("plan_cost allows 2.5; gas 3.92 + fees 1.5")
    assert wbtc == "plan_cost allows 4.5; gas 3.92 + fees 2.7 + second hop 5.69 + impact 0.02"


def test_hold_below_min_trade_names_no_cost() -> None:
    """14.88 dollars to move are 8.34 of WETH and 6.54 of WBTC, each below the ten of limits.min_trade; gas is nearly free."""
    values = {"WETH": Fraction("171.72"), "WBTC": Fraction("128.5"), "USDC": Fraction("149.92")}
    step = step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}, values, trigger=Threshold(None, 1_000))
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=GWEI // 1_000), priority_fee_wei=0)
    outcome = evaluation.evaluate_input(
        with_limits(step, plan_cost_bps=50, min_trade=Fraction(10 * 10**6)), proposals.propose_rebalance, None
    )
    assert outcome.kind is OutcomeKind.HOLD, outcome.reason
    assert "too small to trade: of 14.88 USDC to move, each asset's part is below limits.min_trade of 10 USDC" in outcome.reason
    assert "plan_cost" not in outcome.reason


def test_cost_reason_is_empty_within_the_limit() -> None:
    step = with_limits(two(5_500, 4_500, [v2_pool(WETH, USDC, 2_000, DEEP)]), plan_cost_bps=50)
    problem = build_problem(step, reference_prices(step))
    for value, costly in ((10**6, True), (500 * 10**6, False)):
        free = replace(problem, gas_unit_value=Fraction(1, 10), gas_inputs=replace(problem.gas_inputs, allowances={WETH.address: 2**255}))
        assert bool(cost_reason(step.portfolio, free, WETH.address, Fraction(value), True, [USDC.address])) == costly
    assert cost_reason(step.portfolio, replace(problem, plan_cost_bps=None), WETH.address, Fraction(1), True, [USDC.address]) == ""
    apart = problem.with_pools_between([WETH.address])
    assert cost_reason(step.portfolio, apart, WETH.address, Fraction(10**6), True, [USDC.address]) == ""


def test_turnover_that_leaves_dust_is_a_refusal() -> None:
    step = with_limits(small_drift_step(weth=5_300, gwei=0), min_trade=Fraction(250 * 10**6), turnover_bps=200)
    outcome = evaluation.evaluate_input(step, proposals.propose_rebalance, None)
    assert outcome.kind is OutcomeKind.REFUSED


def test_pool_below_its_floor_is_a_refusal() -> None:
    skewed = two(6_500, 3_500, [v2_pool(WETH, USDC, 1_900, DEEP)])
    with pytest.raises(Refused):
        planner.plan(skewed, rebalance_to_targets(skewed))
    assert evaluation.evaluate_input(skewed, proposals.propose_rebalance, None).kind is OutcomeKind.REFUSED


def test_outcome_kinds_have_their_exit_codes() -> None:
    codes = {kind: OUTCOME_EXIT_CODES.get(kind.value, EXIT_OK) for kind in OutcomeKind}
    assert codes[OutcomeKind.HOLD] == codes[OutcomeKind.DONE] == codes[OutcomeKind.PLANNED] == 0
    assert codes[OutcomeKind.REFUSED] == codes[OutcomeKind.HALT] == codes[OutcomeKind.DECLINED] == 10
    assert codes[OutcomeKind.FAILED] == 11


def test_hold_for_cost_sends_no_alert() -> None:
    outcome = evaluation.evaluate_input(small_drift_step(min_trade=None), proposals.propose_rebalance, None)
    kinds = {alert.kind for alert in alerts(outcome, RunFacts(paused=False, heartbeat_fault="", low_gas_wei=None))}
    assert not kinds & {AlertKind.REFUSAL, AlertKind.HALT, AlertKind.ERROR}


def test_gas_above_any_benefit_is_a_hold() -> None:
    """Pools that lead elsewhere say only that plan_cost is exceeded: gas alone decides."""
    targets = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
    pools = [v2_pool(WETH, USDC, 2_000, DEEP, fee_pips=500), v3_pool(WBTC, WETH, 30, DEEP), v3_pool(WBTC, WETH, 30, DEEP, 3_000)]
    step = step_input(targets, {"WETH": 0, "WBTC": 0, "USDC": 3_000}, pools=pools)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=45 * GWEI))
    outcome = evaluation.evaluate_input(step, proposals.propose_rebalance, None)
    assert outcome.kind is OutcomeKind.HOLD, outcome.reason
    assert "cost" in outcome.reason, outcome.reason


@pytest.mark.parametrize(("plan_cost_bps", "fee_alone"), [(5, True), (6, False)])
def test_nothing_planned_blames_plan_cost_only_for_fees(plan_cost_bps: int, fee_alone: bool) -> None:
    """A fee of 5 bps takes all that a cost of 5 bps at most allows; with a higher limit the price of the pool is to blame."""
    step = without_gas(with_limits(two(6_500, 3_500, [v3_pool(WETH, USDC, 1_990, DEEP, fee_pips=500)]), plan_cost_bps=plan_cost_bps))
    with pytest.raises(planner.NothingPlanned) as nothing:
        planner.plan(step, rebalance_to_targets(step))
    assert nothing.value.limiting_rule == ("limits.plan_cost" if fee_alone else "")


def test_outcome_names_a_skipped_asset_once(capsys: pytest.CaptureFixture[str]) -> None:
    """WETH is bought; WBTC, about 20 dollars off, is not worth its gas."""
    pools = [v2_pool(WETH, USDC, 2_000, DEEP), v3_pool(WBTC, USDC, 60_000, DEEP, 3_000)]
    values = {"WETH": 3_000, "WBTC": 2_980, "USDC": 4_020}
    step = with_limits(step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}, values, pools=pools), plan_cost_bps=50)
    planned = evaluation.evaluate_input(step, proposals.propose_rebalance, None)
    done = replace(planned, kind=OutcomeKind.DONE)
    assert planned.kind is OutcomeKind.PLANNED, planned.reason
    why, _ = describe.off_target_reasons(done)  # the other line is of the dollars that would pay for it
    assert why.startswith("WBTC stays "), why
    assert " USDC off target: plan_cost allows " in why, why
    assert "; gas " in why, why
    show_outcome(done, None, PrintStyle(as_json=False, verbose=False), send_allowed=True)
    shown_lines = " ".join(capsys.readouterr().out.split())
    assert shown_lines.count("WBTC stays") == shown_lines.count(why) == 1
    show_outcome(planned, None, PrintStyle(as_json=False, verbose=False), send_allowed=False)
    assert " ".join(capsys.readouterr().out.split()).count(why) == 1


@pytest.mark.parametrize("value", [Fraction("13.58"), Fraction("0.4"), Fraction(40)])
def test_cost_reason_shows_the_digits_above_the_limit(value: Fraction) -> None:
    """A fee of 30 bps and gas of a little more than 20 bps of the value: both sides were 0.07."""
    step = with_limits(two(5_500, 4_500, [v2_pool(WETH, USDC, 2_000, DEEP)]), plan_cost_bps=50)
    problem = build_problem(step, reference_prices(step))
    money, units = value * 10**6, LEG_GAS + APPROVAL_GAS
    problem = replace(problem, gas_unit_value=money * Fraction("0.0020001") / units)
    reason = cost_reason(step.portfolio, problem, WETH.address, money, True, [USDC.address])
    limit, costs = reason.removeprefix("plan_cost allows ").split("; ")
    assert sum(Fraction(part.rsplit(" ", 1)[1]) for part in costs.split(" + ")) > Fraction(limit)
