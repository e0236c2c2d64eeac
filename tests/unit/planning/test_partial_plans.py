"""Tests of agent/planning/partial_plans.py: a plan whose worst case exceeds the rest of limits.daily_loss is traded in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.guards.case import build_guard_case
from agent.layers import sales
from agent.model import (
    NATIVE_VENUE,
    ExternalTransferKind,
    Hold,
    Leg,
    LegPlace,
    Payment,
    PendingPayment,
    Plan,
    PurchaseKind,
    PurchaseProgress,
    StepInput,
)
from agent.planning import partial_plans, proposals
from agent.planning.requests import raise_money_proposer
from agent.policy.cash_flows.transfers import reserve_withdrawals
from agent.reference import disagreement_loss, reference_prices
from agent.units import BPS, NATIVE
from tests.support.builders import ETHER, step_input, token, v2_pool, v3_pool, with_history, with_limits, with_snapshot
from tests.support.decisions.partial_plans import partial_purchase_step
from tests.support.decisions.purchases import MILLION
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.planning_worlds import DEEP, any_problem_with_gas, rebalance_to_targets
from tests.support.plans import R, Swap, evidence, plan_of, sell_weth
from tests.support.records.transfers import transfer
from tests.support.samples import examples
from tests.support.signing import leg
from tests.support.tokens import USDC, WETH

ROOMY = {"turnover_bps": None, "daily_turnover_bps": None}
DAI = token("DAI")
DAILY_LOSS = 100 * MILLION
"""limits.daily_loss of `limited_step`, one percent of 10,000 USDC."""


def limited_step(**history: object) -> StepInput:
    """Return 6,000 USDC of WETH and 4,000 USDC, of which a day may lose one percent."""
    return with_history(with_limits(step_input(values={"WETH": 6_000, "USDC": 4_000}), daily_loss_bps=100), **history)


def weth_plan(*, is_exit: bool = False, **cost: Fraction) -> Plan:
    """Return the sale of WETH in `limited_step`, as an exit or not, with these parts of its cost."""
    plan = sell_weth(limited_step())
    return replace(plan, cost=replace(plan.cost, **cost), decision=replace(plan.decision, is_exit=is_exit))


def overweight_step() -> StepInput:
    """Return 4,000 USDC to sell, whose worst case exceeds the ten USDC that a day may lose."""
    return with_limits(step_input(values={"WETH": 9_000, "USDC": 1_000}, depth=DEEP), daily_loss_bps=10, **ROOMY)


def loss_left_by_guard(step: StepInput, plan: Plan) -> Fraction:
    """Return what the guard lets a plan lose at worst."""
    case = build_guard_case(step, plan, evidence(step, plan))
    return case.portfolio_value() * Fraction(step.limits.daily_loss_bps or 0, BPS) - step.history.budgets.loss_24h


def worst_loss_by_guard(step: StepInput, plan: Plan) -> Fraction:
    return max(Fraction(0), build_guard_case(step, plan, evidence(step, plan)).worst_cost())


def outcome_of(step: StepInput) -> StepOutcome:
    return evaluation.evaluate_input(step, proposals.propose_rebalance, FakeEvidenceSource())


# --- The worst case


def test_worst_case_takes_minimums_and_the_highest_gas() -> None:
    step = limited_step()
    plan = sell_weth(step)

    loss = partial_plans.worst_case_loss(step, plan)

    gas_value = partial_plans.worst_case_gas(step, plan)
    assert loss == 1_000 * MILLION - plan.legs[0].min_out_raw + gas_value == worst_loss_by_guard(step, plan)
    assert gas_value > 0
    assert plan.legs[0].min_out_raw < plan.legs[0].amount_out_raw


def test_worst_case_over_a_hub_counts_the_last_minimum_alone() -> None:
    pools = [v2_pool(WETH, DAI, 2_000), v2_pool(DAI, USDC, 1)]
    step = with_limits(step_input(hubs=("DAI",), pools=pools), daily_loss_bps=100)
    plan = plan_of(step, [Swap(pools[0], WETH.address, ETHER, sink=R), Swap(pools[1], DAI.address, source=R)])

    loss = partial_plans.worst_case_loss(step, plan)

    assert loss == 2_000 * MILLION - plan.legs[1].min_out_raw + partial_plans.worst_case_gas(step, plan)


def test_worst_case_counts_the_worse_of_two_agreeing_prices() -> None:
    """The feed says 2,000, the mean of the pool 2,010: what is sold counts at the higher of the two."""
    step = with_snapshot(limited_step(), pools=(v3_pool(WETH, USDC, 2_010),))
    step = replace(step, reference=replace(step.reference, uses_worse_source=True))
    plan = sell_weth(step)
    prices = reference_prices(step).price_by_token

    added_value = partial_plans.worst_case_loss(step, plan) - partial_plans.worst_case_loss(step, plan, prices)

    assert added_value == disagreement_loss(step, plan.wallet_changes()) == pytest.approx(5 * MILLION, rel=0.02)


WRAP = leg(NATIVE, WETH.address, 5, 5, venue=NATIVE_VENUE, pool="weth")
"""In the wallet: exchanges nothing."""
WRAP_TO_ROUTER = replace(WRAP, sink=LegPlace.ROUTER)
SALE = leg(WETH.address, USDC.address, 7, 9, pool="pool")
ROUTED_SALE = replace(SALE, source=LegPlace.ROUTER)


@pytest.mark.parametrize(
    ("legs", "sold_value"),
    [
        pytest.param([SALE], 14, id="sale"),
        pytest.param([SALE, SALE], 28, id="two sales"),
        pytest.param([WRAP, SALE], 14, id="wrap in the wallet"),
        pytest.param([WRAP_TO_ROUTER, ROUTED_SALE], 10, id="wrap that pays a sale"),
        pytest.param([ROUTED_SALE], 0, id="sale from the router"),
    ],
)
def test_value_sold_is_what_leaves_the_wallet(legs: Sequence[Leg], sold_value: int) -> None:
    plan = replace(sell_weth(limited_step()), legs=tuple(legs))

    assert partial_plans.value_sold(plan, {WETH.address: Fraction(2), NATIVE: Fraction(2), USDC.address: Fraction(1)}) == sold_value


# --- What the day may still lose


AUTOMATIC = transfer(1_000 * MILLION, value=Fraction(1_000 * MILLION), token=USDC.address, kind=ExternalTransferKind.AUTOMATIC)


@pytest.mark.parametrize(
    ("changes", "loss_left"),
    [
        pytest.param({}, DAILY_LOSS, id="nothing lost"),
        pytest.param({"loss_24h": Fraction(30 * MILLION)}, 70 * MILLION, id="part lost"),
        pytest.param({"loss_24h": Fraction(120 * MILLION)}, -20 * MILLION, id="more lost than allowed"),
        pytest.param({"loss_24h": Fraction(-20 * MILLION)}, 120 * MILLION, id="gained"),
        pytest.param({"unknown_reason": "no price"}, None, id="loss unknown"),
        pytest.param({"accepted_deposits": (AUTOMATIC,)}, 90 * MILLION, id="new deposit does not count"),
    ],
)
def test_daily_loss_left_is_the_limit_less_the_loss(changes: dict[str, object], loss_left: int | None) -> None:
    assert partial_plans.daily_loss_left(limited_step(**changes)) == loss_left


@pytest.mark.parametrize("loss_left", [partial_plans.daily_loss_left, partial_plans.daily_loss_left_for_exits], ids=["plans", "exits"])
def test_daily_loss_left_without_a_limit_is_none(loss_left: Callable[[StepInput], Fraction | None]) -> None:
    assert loss_left(with_limits(limited_step(), daily_loss_bps=None)) is None


@pytest.mark.parametrize(
    ("decrease", "lost", "regained"),
    [
        pytest.param(50, 80, 50, id="part"),
        pytest.param(50, 50, 50, id="whole"),
        pytest.param(50, 49, 49, id="one unit gained by trades"),
        pytest.param(50, 30, 30, id="trades gained"),
        pytest.param(50, 0, 0, id="all regained"),
        pytest.param(50, -20, 0, id="day gained"),
        pytest.param(0, 30, 0, id="trades alone"),
    ],
)
def test_exit_regains_no_more_than_the_day_lost(decrease: int, lost: int, regained: int) -> None:
    """What trades gained is in the day's loss already; given back twice, it would be room beyond the limit."""
    step = limited_step(loss_24h=Fraction(lost), decrease_24h=Fraction(decrease))

    assert partial_plans.daily_loss_left_for_exits(step) == DAILY_LOSS - lost + regained


@pytest.mark.parametrize(
    ("changes", "loss_left"),
    [
        pytest.param(
            {"non_trade_loss_24h": Fraction(20 * MILLION), "loss_24h": Fraction(30 * MILLION)}, 90 * MILLION, id="gas of other transactions"
        ),
        pytest.param({"unknown_reason": "fall", "unpriced_falls_reason": "fall"}, DAILY_LOSS, id="unpriced fall"),
        pytest.param({"unknown_reason": "fall; reorg", "unpriced_falls_reason": "fall"}, None, id="more is unknown"),
        pytest.param({"accepted_deposits": (AUTOMATIC,)}, DAILY_LOSS, id="new deposit counts"),
    ],
)
def test_exit_is_bound_by_losses_of_trades_alone(changes: dict[str, object], loss_left: int | None) -> None:
    assert partial_plans.daily_loss_left_for_exits(limited_step(**changes)) == loss_left


@pytest.mark.parametrize(
    ("lost_beyond", "fits"), [pytest.param(0, True, id="at the limit"), pytest.param(Fraction(1, 10**9), False, id="a fraction beyond")]
)
@pytest.mark.parametrize("is_exit", [True, False])
def test_fits_daily_loss_up_to_the_limit(is_exit: bool, lost_beyond: Fraction, fits: bool) -> None:
    """An exit is judged by its predicted cost, every other plan by its worst case."""
    plan = weth_plan(is_exit=is_exit, fees=Fraction(3 * MILLION))
    loss = plan.cost.total if is_exit else partial_plans.worst_case_loss(limited_step(), plan)

    assert partial_plans.fits_daily_loss(limited_step(loss_24h=DAILY_LOSS - loss + lost_beyond), plan) is fits


@pytest.mark.parametrize("is_exit", [True, False])
def test_fall_of_prices_bars_no_exit(is_exit: bool) -> None:
    fall = Fraction(2 * DAILY_LOSS)

    assert partial_plans.fits_daily_loss(limited_step(loss_24h=fall, decrease_24h=fall), weth_plan(is_exit=is_exit)) is is_exit


@pytest.mark.parametrize(("lost", "fits"), [(DAILY_LOSS, True), (DAILY_LOSS + 1, False)])
def test_plan_that_gains_fits_only_where_the_limit_is_not_exceeded(lost: int, fits: bool) -> None:
    plan = weth_plan(is_exit=True, skew=Fraction(-5 * MILLION))

    assert partial_plans.fits_daily_loss(limited_step(loss_24h=Fraction(lost)), plan) is fits


@pytest.mark.parametrize(
    ("lost", "worst_case", "percent"),
    [
        pytest.param(0, 110 * MILLION, "1.1", id="exactly a tenth of a percent"),
        pytest.param(0, 110 * MILLION + 1, "1.2", id="one base unit more"),
        pytest.param(50 * MILLION, 60 * MILLION, "1.1", id="loss of the day counts"),
        pytest.param(-50 * MILLION, 110 * MILLION, "1.1", id="gain of the day does not"),
    ],
)
def test_partial_plan_reason_names_the_limit_that_would_do(lost: int, worst_case: int, percent: str) -> None:
    reason = partial_plans.partial_plan_reason(limited_step(loss_24h=Fraction(lost)), Fraction(worst_case))

    assert "limits.daily_loss (1 %)" in reason
    assert f'limits.daily_loss = "{percent}%" would allow it' in reason


def test_limit_that_would_do_is_a_share_without_automatic_deposits() -> None:
    """A fifth of the 10,000 came by itself: 110 are 1.375 % of the rest."""
    deposit = transfer(kind=ExternalTransferKind.AUTOMATIC, value=Fraction(2_000 * MILLION))
    step = with_history(limited_step(), accepted_deposits=(deposit,))

    assert 'limits.daily_loss = "1.4%"' in partial_plans.partial_plan_reason(step, Fraction(110 * MILLION))


@pytest.mark.parametrize(
    ("fall", "cost_of_trades", "is_part"),
    [
        pytest.param(0, 0, True, id="nothing lost"),
        pytest.param(20, 0, True, id="a fall of balances alone"),
        pytest.param(0, 16, True, id="trades leave a quarter of the limit"),
        pytest.param(0, 17, False, id="trades leave less than a quarter"),
    ],
)
def test_sale_for_a_withdrawal_is_in_parts_beside_a_fall_of_balances(fall: int, cost_of_trades: int, is_part: bool) -> None:
    """22 may be lost, the whole sale costs more."""
    claim = PendingPayment(1, Payment(USDC.address, 9_000 * MILLION))
    lost = {"loss_24h": Fraction((fall + cost_of_trades) * MILLION), "decrease_24h": Fraction(fall * MILLION)}
    step = step_input({"WETH": 9_000, "USDC": 1_000}, {"WETH": 11_000, "USDC": 1_000}, depth=1_000_000)
    step = with_limits(step, first_purchase_s=600, daily_loss_bps=20, plan_cost_bps=None, price_impact_bps=1_000)
    step = reserve_withdrawals(with_history(step, pending_payments=(claim,), **lost))

    plan = raise_money_proposer(USDC.address)(step).plan

    assert plan is not None
    assert partial_plans.fits_daily_loss(step, plan) is is_part


# --- Plans


@examples(5)
@given(st.integers(0, 10**6), st.integers(1, 200), st.fractions(0, 1))
def test_partial_plan_fits_the_rest_of_daily_loss(seed: int, limit_bps: int, lost: Fraction) -> None:
    step = with_limits(any_problem_with_gas(seed), daily_loss_bps=limit_bps)
    step = with_history(step, loss_24h=lost * limit_bps * 10 * MILLION)
    try:
        whole = sales.plan_sales(step, rebalance_to_targets(step))
    except Refused:
        assume(False)

    plan = partial_plans.plan_within_daily_loss(step, rebalance_to_targets(step), whole)

    if partial_plans.fits_daily_loss(step, whole) and worst_loss_by_guard(step, whole) <= loss_left_by_guard(step, whole):
        assert plan == whole
    elif plan != whole:
        assert worst_loss_by_guard(step, plan) <= loss_left_by_guard(step, plan)
        assert plan.turnover < whole.turnover
        assert "limits.daily_loss" in plan.decision.reason


def test_partial_plan_uses_most_of_the_rest_of_daily_loss() -> None:
    step = overweight_step()

    plan = partial_plans.plan_within_daily_loss(step, rebalance_to_targets(step))

    loss_left = partial_plans.daily_loss_left(step)
    assert loss_left * Fraction(9, 10) < partial_plans.worst_case_loss(step, plan) <= loss_left


def test_partial_plan_counts_its_parts() -> None:
    step = overweight_step()
    whole = sales.plan_sales(step, rebalance_to_targets(step))

    plan = partial_plans.plan_within_daily_loss(step, rebalance_to_targets(step), whole)

    assert f"part 1 of about {-(-whole.turnover // plan.turnover)}:" in plan.decision.reason


@pytest.mark.parametrize("lost", [pytest.param(10 * MILLION, id="nothing left"), pytest.param(11 * MILLION, id="more than allowed")])
def test_plan_stays_whole_where_no_part_fits(lost: int) -> None:
    step = with_history(overweight_step(), loss_24h=Fraction(lost))
    decision = rebalance_to_targets(step)

    assert partial_plans.plan_within_daily_loss(step, decision) == sales.plan_sales(step, decision)


@pytest.mark.parametrize("is_exit", [True, False])
def test_exit_is_never_reduced_by_daily_loss(is_exit: bool) -> None:
    step = overweight_step()
    decision = replace(rebalance_to_targets(step), is_exit=is_exit)

    assert (partial_plans.plan_within_daily_loss(step, decision) == sales.plan_sales(step, decision)) is is_exit


# --- Whole steps


@given(st.integers(2_000, 30_000), st.integers(0, 75), st.integers(4, 40))
def test_purchase_part_fits_the_rest_of_daily_loss(dollars: int, lost_percent: int, limit_bps: int) -> None:
    """Two assets are bought in the same part of what each lacks."""
    step = step_input({"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}, {"WETH": 0, "WBTC": 0, "USDC": dollars * 10}, depth=DEEP)
    step = with_limits(step, first_purchase_s=600, daily_loss_bps=limit_bps, plan_cost_bps=200)
    lost = Fraction(dollars * 10 * limit_bps * lost_percent * MILLION, BPS * 100)

    outcome = outcome_of(with_history(step, last_rebalance_s=None, loss_24h=lost))

    assume(outcome.plan is not None and outcome.kind is OutcomeKind.PLANNED)
    step = outcome.step_input
    assert worst_loss_by_guard(step, outcome.plan) <= loss_left_by_guard(step, outcome.plan)
    if outcome.decision_result.purchase_result.new_purchase is not None:
        assert len({leg.token_out for leg in outcome.plan.legs}) == 2
        assert "limits.daily_loss" in outcome.reason


def test_first_purchase_beyond_daily_loss_begins_in_parts() -> None:
    outcome = outcome_of(partial_purchase_step())

    assert outcome.kind is OutcomeKind.PLANNED
    new_purchase = outcome.decision_result.purchase_result.new_purchase
    assert new_purchase.kind is PurchaseKind.FIRST
    assert new_purchase.part_count > 1
    assert f"part 1 of {new_purchase.part_count}" in outcome.reason


def test_first_purchase_is_whole_at_the_limit_that_its_reason_names() -> None:
    reason = outcome_of(partial_purchase_step()).reason
    named_bps = Fraction(reason.split('limits.daily_loss = "')[1].split("%")[0]) * 100

    outcome = outcome_of(partial_purchase_step(daily_loss_bps=int(named_bps)))

    assert outcome.plan is not None
    assert outcome.decision_result.purchase_result.new_purchase is None


def purchase_under_way(lost: int) -> StepInput:
    new_purchase = outcome_of(partial_purchase_step()).decision_result.purchase_result.new_purchase
    assert new_purchase is not None
    progress = PurchaseProgress("1", new_purchase, 1, Fraction(0), Fraction(0), 0)
    return with_history(partial_purchase_step(), last_rebalance_s=1, purchase=progress, loss_24h=Fraction(lost))


def test_purchase_part_waits_for_the_daily_loss() -> None:
    outcome = outcome_of(purchase_under_way(lost=12 * MILLION))

    assert isinstance(outcome.decision, Hold)
    assert (outcome.kind, outcome.decision.limiting_rule) == (OutcomeKind.HOLD, "limits.daily_loss")
    assert "12 of 14 USDC" in outcome.reason


def test_purchase_part_is_traded_once_the_daily_loss_allows_it() -> None:
    outcome = outcome_of(purchase_under_way(lost=9 * MILLION))

    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.decision_result.purchase_result.due_part.number == 2


def test_purchase_is_refused_with_no_daily_loss_left() -> None:
    outcome = outcome_of(partial_purchase_step(Fraction(14 * MILLION)))

    assert outcome.kind is OutcomeKind.REFUSED
    assert [verdict.guard for verdict in outcome.refusal_verdicts if not verdict.passed] == ["daily_loss"]
    assert outcome.decision_result.purchase_result.new_purchase is None


def test_correction_beyond_daily_loss_is_done_in_part() -> None:
    outcome = outcome_of(overweight_step())

    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert "part 1" in outcome.reason
    assert any("limits.daily_loss" in item.why for item in outcome.plan.skipped)
    assert outcome.decision_result.decision == outcome.plan.decision
