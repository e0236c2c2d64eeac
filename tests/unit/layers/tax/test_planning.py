"""Tests of agent/layers/tax/planning.py: sales within the year's limit, and the gain on which a plan's tax is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.layers import sales
from agent.layers.gradual.state import GradualResult
from agent.layers.tax.planning import plan_tax, taxed_gain
from agent.layers.tax.state import TaxState
from agent.model import ExecutionStyle, Hold, LotMethod, OpenLot, Plan, Rebalance, StepInput
from agent.planning import planner, requests
from agent.planning.plan_builder import LOCKED_EXCESS
from agent.planning.proposals import Proposer, propose_rebalance
from agent.policy.decide import decide
from agent.units import NATIVE
from tests.support.builders import ETHER, step_input, v2_pool, with_snapshot
from tests.support.constants import USD
from tests.support.decisions.native_coin import in_native_coin
from tests.support.gradual_execution import PACE
from tests.support.plans import approved
from tests.support.taxes import overweight_step, plan_gain, rebalance_plan, tax_inputs, with_lots, with_tax
from tests.support.text import mentions
from tests.support.tokens import USDC, WBTC, WETH

JUST = Fraction(1, 10**9)


def sold_raw(plan: Plan, token: str = WETH.address) -> int:
    """Return the base units of a token that a plan sells; those of WETH may be native coin."""
    changes_raw = plan.wallet_changes()
    return -changes_raw.get(token, 0) - (changes_raw.get(NATIVE, 0) if token == WETH.address else 0)


# --- the limit of a year


@pytest.mark.parametrize("excess", [Fraction(0), JUST], ids=["exactly the rest", "just more"])
def test_plan_may_gain_exactly_the_rest_of_the_year(excess: Fraction) -> None:
    step = overweight_step(None, realised_usd=200)
    plan = rebalance_plan(step)

    limited_plan = rebalance_plan(with_tax(step, year_limit=200 * USD + plan_gain(step, plan) - excess))

    assert (limited_plan.wallet_changes() != plan.wallet_changes()) is bool(excess)


@pytest.mark.parametrize("held_as", [lambda step: step, in_native_coin], ids=["wrapped coin", "native coin"])
def test_plan_above_the_limit_sells_less_of_what_gains(held_as: Callable[[StepInput], StepInput]) -> None:
    step = held_as(overweight_step(300))
    plan = rebalance_plan(step)
    unlimited_plan = rebalance_plan(held_as(overweight_step(None)))

    assert 290 * USD < plan_gain(step, plan) <= 300 * USD
    assert sold_raw(plan) < sold_raw(unlimited_plan)
    assert [item.subject for item in plan.skipped if mentions(item.why, "tax.year_limit", "300 USDC")] == ["WETH"]
    assert plan.decision == unlimited_plan.decision


@pytest.mark.parametrize(
    ("pool_price", "sold_microcoins"),
    [
        pytest.param(2_000, 299_700, id="at the reference, first try"),
        pytest.param(2_010, 299_101, id="above it, third try"),
    ],
)
def test_each_try_plans_for_a_thousandth_less_than_is_left(pool_price: int, sold_microcoins: int) -> None:
    """A WETH gains 1,000 of a limit of 300; nearly 1,003 in the dearer pool."""
    step = with_snapshot(overweight_step(300), pools=(v2_pool(WETH, USDC, pool_price, 1_000_000),))

    assert round(sold_raw(rebalance_plan(step)) / 10**12) == sold_microcoins


def test_rebalance_is_held_if_the_last_try_gains_too_much_too() -> None:
    """A WETH gains nearly 1,009 in the pool; four tries make up for 4."""
    proposal = propose_rebalance(with_snapshot(overweight_step(300), pools=(v2_pool(WETH, USDC, 2_015, 1_000_000),)))
    hold = proposal.decision_result.decision

    assert proposal.plan is None
    assert isinstance(hold, Hold)
    assert hold.limiting_rule == LOCKED_EXCESS
    assert mentions(hold.reason, "no plan keeps tax.year_limit", "300 USDC")


def two_gains_step(limit: Fraction | None, rate: Fraction = Fraction(1)) -> StepInput:
    """Return a step that has to sell 1,000 of WETH, at twice its cost, and 1,000 of WBTC, at its cost; all reported at this rate."""
    step = step_input({"WETH": 3_000, "WBTC": 3_000, "USDC": 4_000}, {"WETH": 4_000, "WBTC": 4_000, "USDC": 2_000}, depth=10**9)
    lots = (
        OpenLot(WETH.address, 2 * ETHER, 2_000 * USD * rate, 1),
        OpenLot(WBTC.address, 10**8 // 15, 4_000 * USD * rate, 2),
        OpenLot(USDC.address, 2_000 * USD, 2_000 * USD * rate, 3),
    )
    return with_tax(with_lots(step, lots, year_limit=limit), currency="" if rate == 1 else "EUR", rate=rate)


@pytest.mark.parametrize("rate", [Fraction(1), Fraction(1, 2)], ids=["numeraire", "another currency"])
def test_plan_above_the_limit_still_sells_what_gains_nothing(rate: Fraction) -> None:
    plan = rebalance_plan(two_gains_step(100 * USD * rate, rate))
    unlimited_plan = rebalance_plan(two_gains_step(None))

    assert 0 < sold_raw(plan) < sold_raw(unlimited_plan) / 4
    assert sold_raw(plan, WBTC.address) > sold_raw(unlimited_plan, WBTC.address) * 99 // 100
    assert [item.subject for item in plan.skipped if "tax.year_limit" in item.why] == ["WETH"]


@pytest.mark.parametrize(
    ("currency", "most_usd"),
    [pytest.param("", 1_002, id="numeraire"), pytest.param("EUR", 20, id="another currency")],
)
def test_sale_of_the_numeraire_gains_only_in_another_currency(currency: str, most_usd: int) -> None:
    """A thousand dollars are to be sold; in euros they cost half of their price, and ten may be gained. Gas is free."""
    lots = [OpenLot(USDC.address, 7_000 * USD, Fraction(3_500 * USD), 1)] if currency else []
    step = with_lots(step_input(values={"WETH": 3_000, "USDC": 7_000}), lots, year_limit=Fraction(10 * USD))
    step = with_snapshot(with_tax(step, currency=currency), head=replace(step.snapshot.head, base_fee_wei=0), priority_fee_wei=0)

    assert (most_usd - 10) * USD <= sold_raw(rebalance_plan(step), USDC.address) <= most_usd * USD


def test_first_of_several_slices_stays_within_the_year() -> None:
    step = overweight_step(300)
    pace = replace(PACE, style=ExecutionStyle.TWAP, max_rounds=2, twap_duration_s=14_400)
    proposal = propose_rebalance(replace(step, execution=replace(step.execution, pace=pace)))
    execution = proposal.decision_result.layer(GradualResult).new_execution

    assert execution.rounds == 2
    assert proposal.plan is not None
    assert 0 < plan_gain(step, proposal.plan) <= 300 * USD


@pytest.mark.parametrize("realised_usd", [300, 500], ids=["used up", "exceeded before"])
def test_rebalance_is_held_once_the_year_is_used_up(realised_usd: int) -> None:
    """It waits like one that holds for 24 h: a refusal of each cycle would alert for months."""
    proposal = propose_rebalance(overweight_step(300, realised_usd))
    hold = proposal.decision_result.decision

    assert proposal.plan is None
    assert isinstance(hold, Hold)
    assert hold.limiting_rule == LOCKED_EXCESS
    assert mentions(hold.reason, "tax.year_limit", "300 USDC")


def test_refusal_of_a_used_up_year_has_the_rest_to_move_and_a_remedy() -> None:
    step = overweight_step(300, 300)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)

    with pytest.raises(planner.NothingPlanned) as error:
        sales.plan_sales(step, decision)

    assert error.value.drift_value == pytest.approx(2_000 * USD, rel=0.01)
    assert [item.subject for item in error.value.off_target_items] == ["WETH"]
    assert error.value.remedy == "raise tax.year_limit, or wait for the new year"


@pytest.mark.parametrize(("capped_usd", "sold_usd"), [(400, 400), (1_500, 1_000)], ids=["below the year's", "above it"])
def test_caps_of_the_goal_count_beside_those_of_the_year(capped_usd: int, sold_usd: int) -> None:
    """WETH gains beyond 300; of WBTC the year allows all, the request only a part."""
    step = two_gains_step(Fraction(300 * USD))
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    goal = replace(decision.goal, max_sold_raw_by_token=((WBTC.address, 10**8 * capped_usd // 60_000),))

    plan = sales.plan_sales(step, replace(decision, goal=goal))

    assert 0 < sold_raw(plan) < ETHER // 2
    assert sold_raw(plan, WBTC.address) == pytest.approx(10**8 * sold_usd / 60_000, rel=0.01)


def test_units_without_a_lot_are_sold_as_ones_that_gain_nothing() -> None:
    step = two_gains_step(Fraction(300 * USD))
    lots = [lot if lot.token != WBTC.address else replace(lot, raw=lot.raw // 20, cost=lot.cost / 20) for lot in tax_inputs(step).lots]

    plan = rebalance_plan(with_tax(step, lots=tuple(lots)))

    assert sold_raw(plan, WBTC.address) == pytest.approx(10**8 / 60, rel=0.01)


@pytest.mark.parametrize("limit_usd", [0, 300], ids=["no gain allowed", "exceeded before"])
@pytest.mark.parametrize("cost_usd", [2_100, 2_500], ids=["a small loss", "a large loss"])
def test_plan_sells_at_a_loss_whatever_the_year_realised(limit_usd: int, cost_usd: int) -> None:
    step = overweight_step(limit_usd, 500, cost_usd)

    assert rebalance_plan(step).wallet_changes() == rebalance_plan(overweight_step(None, cost_usd=cost_usd)).wallet_changes()


def purchase_step(limit_usd: int | None, realised_usd: int = 0) -> StepInput:
    """Return a step that has to buy one WETH; its gas comes from lots bought at half of their price."""
    lots = [OpenLot(WETH.address, ETHER, Fraction(1_000 * USD), 1)]
    limit = None if limit_usd is None else Fraction(limit_usd * USD)
    return with_lots(step_input(values={"WETH": 3_000, "USDC": 5_000}), lots, realised=realised_usd * USD, year_limit=limit)


@pytest.mark.parametrize(
    ("limit_usd", "realised_usd"),
    [pytest.param(0, 0, id="no gain allowed"), pytest.param(300, 300, id="used up"), pytest.param(300, 500, id="exceeded before")],
)
def test_purchase_waits_for_no_year_because_of_its_gas(limit_usd: int, realised_usd: int) -> None:
    step = purchase_step(limit_usd, realised_usd)
    plan = rebalance_plan(step)

    assert plan_gain(step, plan) > 0
    assert plan.wallet_changes() == rebalance_plan(purchase_step(None)).wallet_changes()
    assert not [item for item in plan.skipped if "tax.year_limit" in item.why]


def test_gains_of_several_tokens_share_the_rest_of_the_year() -> None:
    """Both were bought at half of their price; each may gain its part of 300."""
    step = two_gains_step(None)
    lots = (OpenLot(WETH.address, 2 * ETHER, Fraction(2_000 * USD), 1), OpenLot(WBTC.address, 10**8 // 15, Fraction(2_000 * USD), 2))
    step = with_tax(step, lots=lots)
    limited_step = with_tax(step, year_limit=Fraction(300 * USD))

    plan = rebalance_plan(limited_step)
    sold_shares = [sold_raw(plan, token.address) / sold_raw(rebalance_plan(step), token.address) for token in (WETH, WBTC)]

    assert 290 * USD < plan_gain(limited_step, plan) <= 300 * USD
    assert sold_shares[0] == pytest.approx(sold_shares[1], rel=0.01)


def test_highest_cost_first_leaves_room_that_oldest_first_uses() -> None:
    lots = tuple(OpenLot(WETH.address, ETHER, Fraction(cost_usd * USD), at_s) for at_s, cost_usd in ((1, 500), (2, 1_995), (3, 1_990)))
    step = with_tax(approved(overweight_step(100)), lots=lots)

    dearest_first, oldest_first = (sold_raw(rebalance_plan(with_tax(step, method=method))) for method in (LotMethod.HIFO, LotMethod.FIFO))

    assert dearest_first == sold_raw(rebalance_plan(approved(overweight_step(None)))) > 2 * oldest_first


def test_exit_is_never_reduced() -> None:
    step = overweight_step(0, realised_usd=100)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)

    assert sold_raw(sales.plan_sales(step, replace(decision, is_exit=True))) == sold_raw(rebalance_plan(overweight_step(None)))


def test_rates_that_cannot_be_read__hold_rebalances_and_no_exit() -> None:
    """A stop loss must not wait for a file that another program is writing."""
    fault = "tax.rates eur.csv: line 3 is no rate"
    step = with_tax(overweight_step(10_000), lots=(), fault=fault)
    proposal = propose_rebalance(step)
    assert proposal.plan is None
    assert fault in proposal.decision_result.decision.reason
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    exit_plan = sales.plan_sales(step, replace(decision, is_exit=True))
    assert sold_raw(exit_plan) == sold_raw(rebalance_plan(overweight_step(None)))
    assert sales.sale_caps(step, exit_plan) == {WETH.address: 0}


@pytest.mark.parametrize(
    "proposer",
    [
        pytest.param(requests.rebalance_to_targets, id="edit"),
        pytest.param(requests.invest_proposer({WETH.address: ETHER}), id="invest"),
    ],
)
def test_request_of_the_owner_keeps_to_the_year(proposer: Proposer) -> None:
    plans = [proposer(step).plan for step in (overweight_step(None), overweight_step(300), overweight_step(300, 300))]
    gains = [0 if plan is None else plan_gain(overweight_step(None), plan) for plan in plans]

    assert gains[0] > 300 * USD
    assert 0 < gains[1] <= 300 * USD
    assert gains[2] <= 0


def test_recorded_step_repeats_its_plan() -> None:
    step = overweight_step(300)

    assert rebalance_plan(codec.loads(StepInput, codec.dumps(step))) == rebalance_plan(step)


# --- the taxed gain of a plan


def test_plan_gains_what_its_sale_is_above_its_cost() -> None:
    step = overweight_step(None)
    plan = rebalance_plan(step)

    assert plan_gain(step, plan) == pytest.approx(float(sold_raw(plan) * 1_000 * USD) / ETHER, rel=0.01)
    assert plan_gain(overweight_step(None, cost_usd=3_000), plan) < 0


@pytest.mark.parametrize(
    ("realised_share", "taxed_share"),
    [
        pytest.param(Fraction(0), Fraction(1), id="nothing before"),
        pytest.param(Fraction(1, 2), Fraction(1), id="gains before"),
        pytest.param(Fraction(-1, 2), Fraction(1, 2), id="smaller losses before"),
        pytest.param(Fraction(-1), Fraction(0), id="equal losses before"),
        pytest.param(Fraction(-2), Fraction(0), id="larger losses before"),
    ],
)
def test_taxed_gain_is_net_of_the_losses_of_the_year(realised_share: Fraction, taxed_share: Fraction) -> None:
    step = overweight_step(None)
    plan = rebalance_plan(step)
    gain = plan_gain(step, plan)

    assert taxed_gain(with_tax(step, realised_gain=realised_share * gain), plan) == taxed_share * gain


def test_taxed_gain_is_zero_without_a_tax_table() -> None:
    step = overweight_step(None)

    assert taxed_gain(step.with_layer(TaxState()), rebalance_plan(step)) == 0


def test_taxed_gain_of_another_currency_is_in_the_numeraire() -> None:
    """Twice as many units of the currency, for prices and costs."""
    step = overweight_step(None)
    plan = rebalance_plan(step)
    lots = tuple(replace(lot, cost=2 * lot.cost) for lot in step.layer(TaxState).inputs.lots)  # type: ignore[union-attr]

    doubled_step = with_tax(step, lots=lots, rate=Fraction(2))

    assert taxed_gain(doubled_step, plan) == taxed_gain(step, plan) > 0


@pytest.mark.parametrize("rate_bps", [0, 2_500])
def test_plan_tax_is_the_rate_of_the_taxed_gain(rate_bps: int) -> None:
    step = with_tax(overweight_step(None), tax_rate_bps=rate_bps)
    plan = rebalance_plan(overweight_step(None))

    assert plan_tax(step, plan) == taxed_gain(step, plan) * rate_bps / 10_000
    assert plan_tax(step.with_layer(TaxState()), plan) == 0
